import path from 'node:path'
import { PosternError } from '@postern/shared/errors'
import { parseServiceLabel } from '@postern/shared/service-label'
import {
  findSshServer,
  HEALTH_CHECK_MS,
  parseServiceName,
  refuseStrayCa,
  type ServiceEntry,
  type ServiceSettings,
} from '../connector/service-settings.ts'
import { parseTarget } from '../connector/target.ts'
import { type Entries, type Entry, type EntryShape, type Problem, parseEntries } from '../entry-file.ts'
import { parseFingerprint } from '../login/pin-ca.ts'
import { parseAllowList, parseEdgeOrigin, parseHealthCheck } from './options.ts'

/** `connector.yaml`: several services of one connector process. */

const SHAPE: EntryShape = {
  name: 'text',
  target: 'text',
  label: 'text?',
  allowed_email_domains: 'texts?',
  allowed_email_addresses: 'texts?',
  allow_any_authenticated: 'flag?',
  replace_allow_list: 'flag?',
  proxy_protocol: 'text?',
  health_check: 'text?',
  ssh: 'flag?',
  edge: 'text?',
  enroll_token_file: 'text?',
  ca_file: 'text?',
  ca_fingerprint: 'text?',
  public_ca: 'flag?',
}

interface Values {
  name: string
  target: string
  label?: string
  allowed_email_domains?: string[]
  allowed_email_addresses?: string[]
  allow_any_authenticated?: boolean
  replace_allow_list?: boolean
  proxy_protocol?: string
  health_check?: string
  ssh?: boolean
  edge?: string
  enroll_token_file?: string
  ca_file?: string
  ca_fingerprint?: string
  public_ca?: boolean
}

/** @param file where relative paths begin */
export function parseServicesFile(text: string, file: string): Entries<ServiceEntry> {
  const folder = path.dirname(path.resolve(file))
  return parseEntries(text, {
    ...{ list: 'services', shape: SHAPE, code: 'SERVICES_INVALID' },
    read: (entry) => ({ line: entry.line, settings: readService(entry, folder) }),
    compare: findTwice,
  })
}

function readService(entry: Entry, folder: string): ServiceSettings {
  const values = entry.values as unknown as Values
  const { name, proxy_protocol, enroll_token_file, ca_file, ca_fingerprint, replace_allow_list } = values
  if (proxy_protocol !== undefined && proxy_protocol !== 'v2') {
    throw new PosternError('SERVICES_INVALID', 'proxy_protocol can only be v2')
  }
  const target = parseTarget(values.target)
  const inFolder = (name: string | undefined) => name && path.resolve(folder, name)
  const settings: ServiceSettings = {
    name: parseServiceName(name),
    target,
    label: values.label && parseServiceLabel(values.label),
    allow: parseAllowList({
      ...(values.allowed_email_domains && { allowedEmailDomains: values.allowed_email_domains }),
      ...(values.allowed_email_addresses && { allowedEmailAddresses: values.allowed_email_addresses }),
      allowAnyAuthenticated: values.allow_any_authenticated === true,
    }),
    replaceAllowList: replace_allow_list === true,
    proxyProtocol: proxy_protocol !== undefined,
    healthCheckMs:
      values.health_check === undefined ? HEALTH_CHECK_MS : parseHealthCheck(values.health_check),
    sshServer: findSshServer(target, values.ssh),
    edge: values.edge && parseEdgeOrigin(values.edge),
    enrollTokenFile: inFolder(enroll_token_file),
    caFile: inFolder(ca_file),
    caFingerprint: ca_fingerprint === undefined ? undefined : parseFingerprint(ca_fingerprint),
    publicCa: values.public_ca === true ? true : undefined,
  }
  refuseStrayCa(settings)
  if (settings.enrollTokenFile !== undefined && settings.replaceAllowList) {
    throw new PosternError(
      'SERVICES_INVALID',
      'replace_allow_list needs a person, and an enroll token is for none',
    )
  }
  return settings
}

/** Two entries of one name are one service: neither is the right one. */
function findTwice(entries: readonly ServiceEntry[]): Problem[] {
  const named = Map.groupBy(entries, ({ settings }) => settings.name)
  return [...named].flatMap(([name, [first, ...more]]) =>
    more.map(({ line }) => {
      const message = `the service ${JSON.stringify(name)} stands in line ${first!.line} already`
      return { line, error: new PosternError('SERVICES_INVALID', message) }
    }),
  )
}
