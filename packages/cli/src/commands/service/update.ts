import type { UpdateServiceRequest } from '@postern/shared/api/services'
import { PosternError } from '@postern/shared/errors'
import type { Command } from 'commander'
import { callSignedIn } from '../../credentials/fresh.ts'
import { printJson, tell } from '../../io.ts'
import { loginPolicy } from '../ask.ts'
import { addExamples } from '../examples.ts'
import { type AllowOptions, addAllowOptions, parseAllowList, requireSomebody } from '../options.ts'
import { addServiceOptions, printService, reachService, type ServiceOptions } from './reach.ts'
import { addSshOptions, parseSshOptions, type SshOptions } from './ssh-options.ts'

interface UpdateOptions extends ServiceOptions, AllowOptions, SshOptions {
  name?: string
}

async function runServiceUpdate(given: string, options: UpdateOptions): Promise<void> {
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
  addServiceOptions(addSshOptions(addAllowOptions(command))).action(runServiceUpdate)
  addExamples(command, [
    [
      'admit a domain and one address, nobody else',
      'postern service update crimson-thunder-8434 --allowed-email-domains mycorp.com --allowed-email-addresses contractor@example.com',
    ],
    [
      'ssh certificates for a terminal only, one minute long, with a name of the service’s own',
      "postern service update crimson-thunder-8434 --ssh-permit '' --ssh-ttl 1m --ssh-principals crimson-thunder-8434/dba",
    ],
    ['another name', "postern service update crimson-thunder-8434 --name 'ssh of build-8'"],
  ])
}
