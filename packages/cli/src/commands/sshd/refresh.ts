import type { Command } from 'commander'
import { tell } from '../../io.ts'
import { layoutOf } from '../../sshd/drop-in.ts'
import { refreshSshd } from '../../sshd/refresh.ts'
import { addExamples } from '../examples.ts'
import { DEFAULT_CONFIG } from './setup.ts'

/** `postern sshd refresh`: what a timer runs every minute on a server that was set up. */

interface RefreshOptions {
  sshdConfig: string
  acceptOlderList?: boolean
  quiet?: boolean
}

async function runRefresh(options: RefreshOptions): Promise<void> {
  const refreshed = await refreshSshd(layoutOf(options.sshdConfig), options)
  if (!refreshed) return tell('the setup of this sshd was never confirmed: it was taken back')
  const { krl, isNewKrl, userCas, renewedHostCertificates } = refreshed
  if (userCas.learned > 0) tell(`learned ${userCas.learned} new CA of users, which an older one vouches for`)
  if (userCas.dropped > 0) tell(`dropped ${userCas.dropped} CA of users that is over`)
  if (isNewKrl || !options.quiet) {
    tell(
      `revoked certificates: version ${krl.version}, ${krl.entries} entries${isNewKrl ? '' : ', as before'}`,
    )
  }
  if (renewedHostCertificates > 0) tell(`renewed ${renewedHostCertificates} host certificates`)
}

export function addSshdRefresh(parent: Command): void {
  const command = parent
    .command('refresh')
    .description('bring revoked certificates, new CAs and new host certificates to an sshd that was set up')
    .option('--sshd-config <file>', "sshd's main file", DEFAULT_CONFIG)
    .option(
      '--accept-older-list',
      'take a list of an older version: after the edge was restored from a backup',
    )
    .option('--quiet', 'say only what is new')
    .action(runRefresh)
  addExamples(command, [['now, not within a minute', 'sudo postern sshd refresh']])
}
