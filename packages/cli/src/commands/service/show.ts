import type { Service } from '@postern/shared/api/services'
import { formatDuration } from '@postern/shared/duration'
import type { Command } from 'commander'
import { getPolicy } from '../../api/policy-api.ts'
import { callSignedIn } from '../../credentials/fresh.ts'
import { print, printable, printJson } from '../../io.ts'
import { loginPolicy } from '../ask.ts'
import { addExamples } from '../examples.ts'
import { describeHostKey } from './accept-host-keys.ts'
import { addServiceOptions, printService, reachService, type ServiceOptions } from './reach.ts'
import { describeTrust, listSubjects } from './trust-options.ts'

async function runServiceShow(given: string, options: ServiceOptions): Promise<void> {
  const { edge, name } = reachService(given, options)
  const { service, policy } = await callSignedIn(edge, loginPolicy(options), async (api, session) => ({
    service: await api.getService(session, name),
    policy: (await getPolicy(api, session, name)).policy,
  }))
  if (options.json) {
    const { trustedClientCas = [] } = policy
    return printJson({ service, trustedClientCas, subjects: listSubjects(policy) })
  }
  await printService(service)
  await print(
    describeTrust(policy)
      .map((line) => `${line}\n`)
      .join(''),
  )
  await printSsh(service)
}

/** What the owner of a server needs: how certificates look, which host keys are on record, and what makes sshd admit
 *  the certificates of this service and of no other. */
async function printSsh({ host, ssh, sshHostKeys, ...cas }: Service): Promise<void> {
  if (cas.sshUserCa === '') return
  const userCas = cas.sshUserCas.length > 0 ? cas.sshUserCas : [cas.sshUserCa]
  const hostCas = cas.sshHostCas.length > 0 ? cas.sshHostCas : [cas.sshHostCa]
  const permits = Object.entries(ssh.permit).flatMap(([name, isPermitted]) => (isPermitted ? [name] : []))
  const lines = [
    `  ssh names   ${['EMAIL', host, ...(ssh.sharedPrincipal ? ['postern_ssh_signed'] : []), ...ssh.principals].join(', ')}`,
    ...(ssh.localPartDomain ? [`              the local part of people at ${ssh.localPartDomain}`] : []),
    ...(ssh.groupPrefix ? [`              ${ssh.groupPrefix}GROUP`] : []),
    `  permits     ${['pty', ...permits].join(', ')}`,
    ...(ssh.forceCommand ? [`  runs only   ${ssh.forceCommand}`] : []),
    ...(ssh.sourceAddresses ? [`  only from   ${ssh.sourceAddresses.join(', ')}`] : []),
    ...(ssh.ttlMs ? [`  valid for   ${formatDuration(ssh.ttlMs)}`] : []),
    ...sshHostKeys.keys.map((line) => `  host key    ${describeHostKey(line)}`),
    ...sshHostKeys.pending.map((line) => `  NOT ACCEPTED YET: ${describeHostKey(line)}`),
    '',
    '# /etc/ssh/ca.pub: who signs for users',
    ...userCas.map((line) => `${line} postern-user-ca`),
    '# sshd_config',
    'TrustedUserCAKeys /etc/ssh/ca.pub',
    'AuthorizedPrincipalsFile %h/.ssh/authorized_principals',
    '# ~USER/.ssh/authorized_principals',
    host,
    '# known_hosts of clients: who signs for hosts',
    ...hostCas.map((line) => `@cert-authority ${host} ${line}`),
  ]
  await print(`${lines.map(printable).join('\n')}\n`)
}

export function addServiceShow(parent: Command): void {
  const command = parent
    .command('show')
    .description('show one service')
    .argument('<service>', 'its label or full host')
  addServiceOptions(command).action(runServiceShow)
  addExamples(command, [['one service', 'postern service show crimson-thunder-8434']])
}
