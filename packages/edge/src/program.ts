import { VERSION } from '@postern/shared/version'
import { Command } from 'commander'
import { addAuditKey } from './commands/audit-key.ts'
import { addCaCrl } from './commands/ca-crl.ts'
import { addCaEncryptKeys } from './commands/ca-encrypt-keys.ts'
import { addCaExport } from './commands/ca-export.ts'
import { addCaImport } from './commands/ca-import.ts'
import { addCaInit } from './commands/ca-init.ts'
import { addCaIssueClient } from './commands/ca-issue-client.ts'
import { addCaIssueIntermediate } from './commands/ca-issue-intermediate.ts'
import { addCaIssueServer } from './commands/ca-issue-server.ts'
import { addCaList } from './commands/ca-list.ts'
import { addCaRequest } from './commands/ca-request.ts'
import { addCaRevoke } from './commands/ca-revoke.ts'
import { addCaRotate } from './commands/ca-rotate.ts'
import { addCaShow } from './commands/ca-show.ts'
import { addCaSshShow } from './commands/ca-ssh-show.ts'
import { addConfigCheck } from './commands/config-check.ts'
import { addDev } from './commands/dev.ts'
import { addFlowIdentityKey } from './commands/flow-identity-key.ts'
import { addInit } from './commands/init.ts'
import { addServe } from './commands/serve.ts'
import { addStatus } from './commands/status.ts'
import { addStoreBackup } from './commands/store-backup.ts'
import { addStoreCopy } from './commands/store-copy.ts'
import { addStoreMigrate } from './commands/store-migrate.ts'

/** Everything a command may need of the process. */
export interface ProgramParts {
  /** Data, and the log lines of `serve` and `dev`. */
  stdout: { write(text: string): void }
  /** Sentences for people. */
  stderr: { write(text: string): void }
  /** Where relative paths of options start. */
  cwd: string
  /** Asked for by a command that ends in an orderly way; aborted by the first SIGINT or SIGTERM. */
  takeStopSignal(): AbortSignal
}

/** What an action resolves to: the exit code. */
export type Finish = (exitCode: number) => void

/** Runs one command line and gives its exit code.
 *  @throws PosternError, or CommanderError for usage and after --help and --version */
export async function runProgram(args: readonly string[], parts: ProgramParts): Promise<number> {
  let exitCode = 0
  const finish: Finish = (code) => {
    exitCode = code
  }
  await createProgram(parts, finish).parseAsync([...args], { from: 'user' })
  return exitCode
}

/** The whole command line on one screen. */
function createProgram(parts: ProgramParts, finish: Finish): Command {
  const program = new Command('postern-edge')
    .description('the public side of Postern: signs people in, decides every flow and relays it')
    .version(VERSION, '--version', 'print the version')
    .helpCommand(false)
    .configureOutput({
      writeOut: (text) => parts.stdout.write(text),
      writeErr: (text) => parts.stderr.write(text),
      // main.ts tells it, as every other failure
      outputError: () => {},
    })
    .exitOverride()
  addInit(program, parts)
  addServe(program, parts, finish)
  addDev(program, parts, finish)
  addStatus(program, parts)
  addConfigCheck(program.command('config').description('look at the configuration').helpCommand(false), parts)
  const ca = program
    .command('ca')
    .description('the keys that sign, and what they have signed')
    .helpCommand(false)
  addCaInit(ca, parts)
  addCaShow(ca, parts)
  addCaList(ca, parts)
  addCaExport(ca, parts)
  addCaIssueServer(ca, parts)
  addCaIssueClient(ca, parts)
  addCaRevoke(ca, parts)
  addCaRotate(ca, parts)
  addCaIssueIntermediate(ca, parts)
  addCaRequest(ca, parts)
  addCaImport(ca, parts)
  addCaCrl(ca, parts)
  addCaEncryptKeys(ca, parts)
  addCaSshShow(ca.command('ssh').description('the CAs of ssh').helpCommand(false), parts)
  addAuditKey(program.command('audit').description('look after the audit log').helpCommand(false), parts)
  const flowIdentity = program.command('flow-identity').description('look at the key that says who comes')
  addFlowIdentityKey(flowIdentity.helpCommand(false), parts)
  const store = program.command('store').description('look after keys and store').helpCommand(false)
  addStoreBackup(store, parts)
  addStoreMigrate(store, parts)
  addStoreCopy(store, parts)
  return program
}
