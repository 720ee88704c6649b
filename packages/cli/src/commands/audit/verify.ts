import type { VerifiedExport } from '@postern/shared/audit/verify'
import { PosternError } from '@postern/shared/errors'
import type { Command } from 'commander'
import { print, printable, printJson, tellMore } from '../../io.ts'
import { addExamples } from '../examples.ts'
import { collectList } from '../options.ts'

interface VerifyOptions {
  checkpoint?: string
  key?: string[]
  part?: boolean
  json?: boolean
}

async function runAuditVerify(file: string, options: VerifyOptions): Promise<void> {
  const { readCheckpoints, readSigner, verifyFile } = await import('../../audit/verify-file.ts')
  try {
    const result = await verifyFile(file, {
      signers: (options.key ?? []).map(readSigner),
      checkpoints: options.checkpoint === undefined ? [] : readCheckpoints(options.checkpoint),
      isPart: options.part === true,
    })
    await (options.json ? printJson({ verified: true, ...result }, 0) : printResult(result, options))
  } catch (error) {
    if (options.json && error instanceof PosternError && error.code === 'AUDIT_BROKEN') {
      const { code, message, details } = error
      await printJson({ verified: false, code, message, ...details }, 0)
    }
    throw error
  }
}

async function printResult(result: VerifiedExport, options: VerifyOptions): Promise<void> {
  const { records, unlinked, chains } = result
  const lines = [
    `verified: ${records} records, nothing in them was changed, removed, moved or put in`,
    ...chains.map(({ chain, from, to, signedTo }) => {
      const signed = signedTo === undefined ? 'no checkpoint among them' : `signed up to ${signedTo}`
      return `  ${printable(chain)}  positions ${from} to ${to}, ${signed}`
    }),
  ]
  await print(`${lines.join('\n')}\n`)
  if (unlinked > 0) tellMore(`${unlinked} records are older than the chain: nothing is proven of them`)
  if (!options.key) tellMore('whose signatures these are was not asked: give --key')
  if (options.checkpoint === undefined) {
    tellMore('whether the end was cut off only a checkpoint tells that was kept elsewhere: give --checkpoint')
  }
}

export function addAuditVerify(parent: Command): void {
  const command = parent
    .command('verify')
    .description(
      'check an export without the edge: names the first record that was changed, removed, moved or put in, and exits with 1 (AUDIT_BROKEN)',
    )
    .argument('<export>', 'file of postern audit export; - reads standard input')
    .option('--checkpoint <file>', 'checkpoints that were kept elsewhere: lines of the log or of an export')
    .option(
      '--key <key>',
      'who may have signed, as postern-edge audit key prints it, or a file with it; may be given again',
      collectList,
    )
    .option('--part', 'it is a part of a log: it may begin behind any record')
    .option('--json', 'print one JSON object')
  command.action(runAuditVerify)
  addExamples(command, [
    ['a whole log', 'postern audit verify audit.jsonl --key audit-key.txt --checkpoint checkpoints.jsonl'],
    ['without a file between', 'postern audit export | postern audit verify - --key audit-key.txt'],
  ])
}
