import type { UpdateServiceRequest } from '@postern/shared/api/services'
import { PosternError } from '@postern/shared/errors'
import type { Command } from 'commander'
import { callSignedIn } from '../../credentials/fresh.ts'
import { print, printJson, tell } from '../../io.ts'
import type { TrustChange } from '../../policy/trust-change.ts'
import { loginPolicy } from '../ask.ts'
import { addExamples } from '../examples.ts'
import { type AllowOptions, addAllowOptions, parseAllowList, requireSomebody } from '../options.ts'
import { addServiceOptions, printService, reachService, type ServiceOptions } from './reach.ts'
import { addSshOptions, parseSshOptions, type SshOptions } from './ssh-options.ts'
import {
  addTrustOptions,
  applyTrust,
  describeTrust,
  readTrustChange,
  type TrustOptions,
} from './trust-options.ts'

interface UpdateOptions extends ServiceOptions, AllowOptions, SshOptions, TrustOptions {
  name?: string
}

async function runServiceUpdate(given: string, options: UpdateOptions): Promise<void> {
  const trust = readTrustChange(options)
  if (trust) return updateTrust(given, options, trust)
  const change = readChange(options)
  const { edge, name } = reachService(given, options)
  const service = await callSignedIn(edge, loginPolicy(options), async (api, session) => {
    const { revision } = await api.getService(session, name)
    return api.updateService(session, name, { ...change, revision })
  })
  if (options.json) return printJson({ service })
  tell('the service is changed; flows that it no longer admits end now')
  await printService(service)
}

/** The policy has a revision of its own: together with the rest one of the two could be done and the other not.
 *  @throws USAGE_INVALID */
async function updateTrust(given: string, options: UpdateOptions, change: TrustChange): Promise<void> {
  if (options.name !== undefined || parseAllowList(options) || parseSshOptions(options)) {
    throw new PosternError(
      'USAGE_INVALID',
      'CAs and subjects are changed by themselves: they stand in the policy',
      {
        hint: 'give the other options to a second postern service update',
      },
    )
  }
  const { edge, name: service } = reachService(given, options)
  const { policy, revision } = await callSignedIn(edge, loginPolicy(options), (api, session) =>
    applyTrust(api, session, { service, change }),
  )
  if (options.json) return printJson({ service, policy, revision })
  tell('the policy is changed; flows that it no longer admits end now')
  await print(
    describeTrust(policy)
      .map((line) => `${line}\n`)
      .join(''),
  )
}

/** @throws ALLOW_LIST_EMPTY · USAGE_INVALID when nothing is to be changed */
function readChange(options: UpdateOptions): UpdateServiceRequest {
  const allow = parseAllowList(options)
  const ssh = parseSshOptions(options)
  if (!allow && !ssh && options.name === undefined) {
    throw new PosternError('USAGE_INVALID', 'nothing to change was given', {
      hint: 'give --name, or who may enter: --allowed-email-domains, --allowed-email-addresses or --allow-any-authenticated',
    })
  }
  return {
    ...(options.name === undefined ? {} : { name: options.name }),
    ...(allow ? { allow: toRequest(requireSomebody(allow)) } : {}),
    ...(ssh ? { ssh } : {}),
  }
}

function toRequest(allow: ReturnType<typeof requireSomebody>): NonNullable<UpdateServiceRequest['allow']> {
  const { emailDomains, emailAddresses, anyAuthenticated } = allow
  return { emailDomains: [...emailDomains], emailAddresses: [...emailAddresses], anyAuthenticated }
}

export function addServiceUpdate(parent: Command): void {
  const command = parent
    .command('update')
    .description(
      'change a service. The lists given here replace its whole allow-list: what is left out is no longer admitted',
    )
    .argument('<service>', 'its label or full host')
    .option('--name <text>', 'another name')
  addServiceOptions(addTrustOptions(addSshOptions(addAllowOptions(command)))).action(runServiceUpdate)
  addExamples(command, [
    [
      'admit a domain and one address, nobody else',
      'postern service update crimson-thunder-8434 --allowed-email-domains mycorp.com --allowed-email-addresses contractor@example.com',
    ],
    [
      'ssh certificates for a terminal only, one minute long, with a name of the service’s own',
      "postern service update crimson-thunder-8434 --ssh-permit '' --ssh-ttl 1m --ssh-principals crimson-thunder-8434/dba",
    ],
    [
      'admit a partner’s machines by the certificates that they have',
      "postern service update crimson-thunder-8434 --trusted-client-ca acme=acme-ca.pem --allow-subject 'acme:C=DE,O=Acme,CN=sensor-*'",
    ],
    ['another name', "postern service update crimson-thunder-8434 --name 'ssh of build-8'"],
  ])
}
