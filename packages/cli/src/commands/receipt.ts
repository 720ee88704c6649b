import {
  REVOCATION_POINTS,
  type RevocationPoint,
  type RevocationResponse,
} from '@postern/shared/api/revocations'
import { printJson, printTable, tell } from '../io.ts'

const NAMES: Readonly<Record<RevocationPoint, string>> = {
  sessions: 'sessions',
  tlsCertificates: 'TLS certificates',
  sshCertificates: 'ssh certificates',
  connectors: 'connectors',
  flows: 'live flows',
}

/** What a revocation did, point by point. */
export async function printReceipt(receipt: RevocationResponse, options: { json?: boolean }): Promise<void> {
  if (options.json) return printJson(receipt)
  await printTable(
    ['ended', 'how many', 'at'],
    REVOCATION_POINTS.filter((point) => receipt.at[point] !== undefined).map((point) => [
      NAMES[point],
      String(receipt[point]),
      new Date(receipt.at[point]!).toISOString(),
    ]),
  )
  const { otherEdges } = receipt
  if (otherEdges) {
    const late = otherEdges.told - otherEdges.done
    tell(
      late === 0
        ? `these are of the edge that answered; ${otherEdges.done} more ${otherEdges.done === 1 ? 'has' : 'have'} carried it out`
        : `these are of the edge that answered; of ${otherEdges.told} more ${late} did not say in time that it is done there`,
    )
  }
  if (receipt.sshCertificates > 0) {
    tell(
      `servers refuse the ssh certificates once they have fetched version ${receipt.krlVersion} of the list`,
    )
  }
}
