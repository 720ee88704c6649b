import { readdirSync, readFileSync } from 'node:fs'
import path from 'node:path'
import type { SshHostKeyRecord, SshHostKeysResponse } from '@postern/shared/api/ssh'
import { parseHostKeyLine, verifyHostKeyRecord } from '@postern/shared/certs/ssh-host-record'
import { formatSshPublicKey, parseSshPublicKey } from '@postern/shared/certs/ssh-key'
import { PosternError } from '@postern/shared/errors'
import { replaceFile } from '@postern/shared/replace-file'
import type { EdgeApi } from '../api/edge-api.ts'
import type { KnownEdge } from '../credentials/known-edge.ts'
import { takeLock } from '../credentials/lock.ts'
import type { Session } from '../credentials/session.ts'
import { readStateFile, removeState, type ShapeValue, writeStateFile } from '../credentials/state-file.ts'
import { tell, tellMore } from '../io.ts'
import { recordsFolder, type SshDestination } from './key-files.ts'
import { knownHostsFile } from './known-hosts-file.ts'

/** What ssh is told about the host keys of an edge's services: the host CA, and the keys that the edge has on record
 *  for a server that has no host certificate. One file for each edge, written by nobody else; keys that people
 *  accept themselves stay in their own `known_hosts`. */

const RECORD_SHAPE = { host: 'string', serviceId: 'string', revision: 'number', keys: 'object' } as const
const LOCK_TIMEOUT_MS = 30_000

type StoredRecord = ShapeValue<typeof RECORD_SHAPE>

/** Gets the record of one service and writes the file anew.
 *  @returns whether the server shows other keys now than those on record
 *  @throws HOST_KEY_CHANGED for a record that is older than the one we have · what the verifier says */
export async function updateHostKeys(
  api: EdgeApi,
  session: Session,
  destination: SshDestination,
): Promise<{ pending: boolean }> {
  const { edge, host } = destination
  const answer = await askForRecord(api, session, host)
  if (!answer) return { pending: false }
  const hostCa = canonical(answer.hostCa)
  const record = verifyHostKeyRecord(answer.record, hostCa)
  if (record.host !== host) {
    throw new PosternError(
      'PROTOCOL_INVALID',
      `the edge's record of host keys for ${host} is of ${record.host}`,
    )
  }
  using _lock = await takeLock(path.join(recordsFolder(edge), 'known-hosts.lock'), {
    timeoutMs: LOCK_TIMEOUT_MS,
  })
  storeRecord(destination, record)
  writeKnownHosts(edge, [...new Set([...answer.hostCas.map(canonical), hostCa])])
  if (answer.pending) warnOfChange(destination)
  return { pending: answer.pending }
}

function canonical(line: string): string {
  return formatSshPublicKey(parseSshPublicKey(line))
}

/** @returns undefined from an edge that is older than its records: ssh then asks the person, as it always did */
async function askForRecord(
  api: EdgeApi,
  session: Session,
  host: string,
): Promise<SshHostKeysResponse | undefined> {
  try {
    return await api.getSshHostKeys(session, host)
  } catch (error) {
    if (error instanceof PosternError && error.code === 'NOT_FOUND') return undefined
    throw error
  }
}

/** The text of the file; a test holds it against ssh. */
export function formatKnownHosts(
  domain: string,
  hostCas: readonly string[],
  records: readonly { host: string; keys: readonly string[] }[],
): string {
  const lines = records.flatMap(({ host, keys }) => keys.map((key) => `${host} ${key}`))
  const authorities = hostCas.map((line) => `@cert-authority *.${domain} ${line}`)
  return ['# written by postern', ...authorities, ...lines, ''].join('\n')
}

/** A newer record never gives way to an older one of the same service. */
function storeRecord({ edge, label }: SshDestination, record: SshHostKeyRecord): void {
  const file = hostKeysFile(edge, label)
  const stored = readStateFile(file, RECORD_SHAPE)
  if (stored && stored.serviceId === record.serviceId && stored.revision > record.revision) {
    throw new PosternError(
      'HOST_KEY_CHANGED',
      `the edge gave an older record of the host keys of ${record.host} than before`,
      { hint: `ask an administrator; if the edge was restored from a backup, remove ${file}` },
    )
  }
  if (record.keys.length === 0) return removeState(file)
  const keys = Object.fromEntries(record.keys.map((line, index) => [index, parseHostKeyLine(line)]))
  const { host, serviceId, revision } = record
  writeStateFile(file, { host, serviceId, revision, keys } satisfies StoredRecord)
}

function writeKnownHosts(edge: KnownEdge, hostCas: readonly string[]): void {
  const records = readdirSync(recordsFolder(edge))
    .filter((name) => name.endsWith('.host-keys.json'))
    .sort()
    .map((name) => readStateFile(path.join(recordsFolder(edge), name), RECORD_SHAPE))
    .filter((record) => record !== undefined)
    .map(({ host, keys }) => ({ host, keys: Object.values(keys).map(String) }))
  const text = formatKnownHosts(edge.domain, hostCas, records)
  const file = knownHostsFile(edge)
  if (readIfThere(file) !== text) replaceFile(file, text)
}

function warnOfChange({ host, label }: SshDestination): void {
  tell(`the server behind ${host} shows other host keys than those on record, and nobody has accepted them`)
  tellMore(
    `ssh refuses them until its owner does: postern service accept-host-keys ${label} (HOST_KEY_CHANGED)`,
  )
}

function hostKeysFile(edge: KnownEdge, label: string): string {
  return path.join(recordsFolder(edge), `${label}.host-keys.json`)
}

function readIfThere(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8')
  } catch {
    return undefined
  }
}
