import { VERSION } from '@postern/shared/version'
import { Command } from 'commander'
import { addAuditExport } from './commands/audit/export.ts'
import { addAuditList } from './commands/audit/list.ts'
import { addAuditVerify } from './commands/audit/verify.ts'
import { addCertificateIssue } from './commands/certificate/issue.ts'
import { addCertificateList } from './commands/certificate/list.ts'
import { addCertificateRenew } from './commands/certificate/renew.ts'
import { addCertificateRevoke } from './commands/certificate/revoke.ts'
import { addCertificateShow } from './commands/certificate/show.ts'
import { addClientInstallService } from './commands/client/install-service.ts'
import { addClientListen } from './commands/client/listen.ts'
import { addClientSshKeysign } from './commands/client/ssh-keysign.ts'
import { addClientTls } from './commands/client/tls.ts'
import { addCompletion } from './commands/completion.ts'
import { addConnect } from './commands/connect.ts'
import { addConnectorInstallService } from './commands/connector/install-service.ts'
import { addDoctor } from './commands/doctor.ts'
import { addExplain } from './commands/explain.ts'
import { addFlowCut } from './commands/flow/cut.ts'
import { addFlowList } from './commands/flow/list.ts'
import { addFlowShow } from './commands/flow/show.ts'
import { addLock, addUnlock } from './commands/lock.ts'
import { addLogin } from './commands/login.ts'
import { addLogout } from './commands/logout.ts'
import { addPolicyApply } from './commands/policy/apply.ts'
import { addPolicyDiff } from './commands/policy/diff.ts'
import { addPolicyGet } from './commands/policy/get.ts'
import { addPolicyHistory } from './commands/policy/history.ts'
import { addPolicyTest } from './commands/policy/test.ts'
import { addRevoke } from './commands/revoke.ts'
import { addServiceAcceptHostKeys } from './commands/service/accept-host-keys.ts'
import { addServiceDelete } from './commands/service/delete.ts'
import { addServiceEnrollToken } from './commands/service/enroll-token.ts'
import { addServiceList } from './commands/service/list.ts'
import { addServiceShow } from './commands/service/show.ts'
import { addServiceUpdate } from './commands/service/update.ts'
import { addSessionList } from './commands/session/list.ts'
import { addSessionRevoke } from './commands/session/revoke.ts'
import { addSsh } from './commands/ssh.ts'
import { addSshConfig } from './commands/ssh-config.ts'
import { addSshdRefresh } from './commands/sshd/refresh.ts'
import { addSshdSetup } from './commands/sshd/setup.ts'
import { addWhoami } from './commands/whoami.ts'

/** Everything a command may need of the process. */
export interface ProgramParts {
  /** Asked for by a command that ends in an orderly way at the first SIGINT or SIGTERM. */
  takeStopSignal(): AbortSignal
  /** Asked for by a command that reads a file again at SIGHUP. Where there is a terminal, SIGHUP is its end all the same. */
  onReload(reload: () => void): void
  /** Asked for by a command that runs another program on the same terminal: that one hears SIGINT itself. */
  leaveSignals(): void
}

/** The whole command line on one screen. */
export function createProgram(parts: ProgramParts): Command {
  const program = new Command('postern')
    .description('reach private TCP services by name, and expose them to people you name')
    .version(VERSION, '--version', 'print the version')
    .helpCommand(false)
    // ssh's options after `postern ssh` are ssh's
    .enablePositionalOptions()
    // main.ts tells it, as every other failure
    .configureOutput({ outputError: () => {} })
    .exitOverride()
  addLogin(program)
  addLogout(program)
  addWhoami(program)
  addConnect(program, parts)
  const client = addGroup(program, 'client', 'reach a service')
  addClientTls(client)
  addClientListen(client, parts)
  addClientInstallService(client)
  addClientSshKeysign(client)
  addConnectorInstallService(addGroup(program, 'connector', 'the connector of this machine'))
  const service = addGroup(program, 'service', 'look at and change services')
  addServiceList(service)
  addServiceShow(service)
  addServiceUpdate(service)
  addServiceDelete(service)
  addServiceEnrollToken(service)
  addServiceAcceptHostKeys(service)
  const policy = addGroup(program, 'policy', 'who may reach what, under which conditions')
  addPolicyGet(policy)
  addPolicyApply(policy)
  addPolicyDiff(policy)
  addPolicyTest(policy)
  addPolicyHistory(policy)
  const certificate = addGroup(program, 'certificate', 'certificates of programs that cannot run postern')
  addCertificateIssue(certificate)
  addCertificateList(certificate)
  addCertificateShow(certificate)
  addCertificateRenew(certificate)
  addCertificateRevoke(certificate)
  const sshd = addGroup(program, 'sshd', "make this machine's ssh server admit certificates")
  addSshdSetup(sshd)
  addSshdRefresh(sshd)
  const flow = addGroup(program, 'flow', 'live connections')
  addFlowList(flow)
  addFlowShow(flow)
  addFlowCut(flow)
  const session = addGroup(program, 'session', 'logins that last')
  addSessionList(session)
  addSessionRevoke(session)
  addLock(program)
  addUnlock(program)
  const audit = addGroup(program, 'audit', 'what the edge has decided and done')
  addAuditList(audit, parts.takeStopSignal)
  addAuditExport(audit)
  addAuditVerify(audit)
  addRevoke(program)
  addSsh(program, parts.leaveSignals)
  addSshConfig(program)
  addDoctor(program)
  addExplain(program)
  addCompletion(program)
  return program
}

function addGroup(program: Command, name: string, description: string): Command {
  return program.command(name).description(description).helpCommand(false)
}

/** @throws PosternError, or CommanderError for usage and after --help and --version */
export async function runProgram(args: readonly string[], parts: ProgramParts): Promise<void> {
  await createProgram(parts).parseAsync([...args], { from: 'user' })
}
