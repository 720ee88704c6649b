import { existsSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import path from 'node:path'
import { PosternError } from '@postern/shared/errors'
import { type Command, Option } from 'commander'
import { openChainKeys } from '../audit/chain.ts'
import { createAuthorities, fingerprintOf } from '../ca/authorities.ts'
import { openSshAuthorities } from '../ca/ssh-authorities.ts'
import { type EdgeConfig, publicOrigin } from '../config/config.ts'
import { readSecret } from '../config/load.ts'
import { type ConfigProblem, parseConfig } from '../config/parse.ts'
import { makePrivateFolder, writePrivateFile } from '../private-file.ts'
import type { ProgramParts } from '../program.ts'
import { loginLine } from './run-edge.ts'

interface InitOptions {
  config: string
  domain: string
  listen?: string
  dataDir?: string
  devIdentity?: boolean
  issuer?: string
  clientId?: string
  clientSecretFile?: string
  caKeyPassphraseFile?: string
}

export function addInit(program: Command, parts: ProgramParts): void {
  program
    .command('init')
    .description('write a configuration file and the keys of a new edge')
    .requiredOption('--domain <domain>', 'the edge’s name; services are one label below it')
    .option('--config <file>', 'where to write the configuration', 'edge.yaml')
    .option('--listen <address>', 'address and port (default: ":443", with --dev-identity 127.0.0.1:8443)')
    .option('--data-dir <dir>', 'folder of keys and store (default: data, beside the configuration)')
    .addOption(
      new Option('--dev-identity', 'believe any address, on this machine only').conflicts([
        'issuer',
        'clientId',
        'clientSecretFile',
      ]),
    )
    .option('--issuer <url>', 'the company’s OpenID Connect provider')
    .option('--client-id <id>', 'what the provider calls this edge')
    .option('--client-secret-file <file>', 'file with the client secret')
    .option(
      '--ca-key-passphrase-file <file>',
      'file with the passphrase under which the keys are encrypted from the start',
    )
    .addHelpText(
      'after',
      `
Never overwrites a configuration or keys.

Examples:
  $ postern-edge init --config /etc/postern-edge/edge.yaml --data-dir /var/lib/postern-edge \\
      --domain edge.mycorp.com --issuer https://accounts.google.com --client-id ID \\
      --client-secret-file /etc/postern-edge/client-secret
  $ openssl rand -base64 32 | install -m 600 /dev/stdin /etc/postern-edge/ca-passphrase
  $ postern-edge init --domain edge.mycorp.com --ca-key-passphrase-file /etc/postern-edge/ca-passphrase …
  $ postern-edge init --domain edge.localhost --dev-identity`,
    )
    .action((options: InitOptions) => runInit(options, parts))
}

async function runInit(options: InitOptions, parts: ProgramParts): Promise<void> {
  const file = path.resolve(parts.cwd, options.config)
  const text = composeConfig(options, parts.cwd)
  const config = checkOptions(
    text,
    file,
    options.clientSecretFile && path.resolve(parts.cwd, options.clientSecretFile),
  )
  const { keyLock: lock } = config.ca
  await writeNewFile(file, text)
  const made = [file] // ours, a moment old: with half of the keys all of it would only be in the way
  let caFingerprint: string
  try {
    const { edge } = await createAuthorities(config.dataDir, Date.now(), { domain: config.domain, lock }) // refuses where there are some
    made.push(path.join(config.dataDir, 'ca'))
    caFingerprint = fingerprintOf(edge)
    await openSshAuthorities(config.dataDir, config.ssh.caKeyType, lock)
    const audit = path.join(config.dataDir, 'audit')
    if (!existsSync(audit)) made.push(audit)
    await openChainKeys(config.dataDir, config.audit.checkpointKeyFile)
  } catch (error) {
    for (const entry of made) await rm(entry, { recursive: true, force: true })
    throw error
  }
  tellNextSteps(options, { ...config, caFingerprint }, parts)
}

/** What the options mean, before anything is written.
 *  @throws USAGE_INVALID */
function checkOptions(text: string, file: string, clientSecretFile: string | undefined): EdgeConfig {
  // the secret may be put there later
  const readLater = (secretFile: string) => (secretFile === clientSecretFile ? '' : readSecret(secretFile))
  const files = {
    readSecret: readLater,
    checkCertificate: () => {},
    readCa: () => '',
    checkProgram: () => {},
  }
  try {
    return parseConfig(text, { name: file, folder: path.dirname(file), files })
  } catch (error) {
    if (!(error instanceof PosternError)) throw error
    const problems = (error.details!.problems as ConfigProblem[]).map(describeAsOption)
    throw new PosternError('USAGE_INVALID', problems.join('\n'), { cause: error })
  }
}

const FLAGS: Readonly<Record<string, string>> = {
  domain: '--domain',
  listen: '--listen',
  data_dir: '--data-dir',
  'identity.issuer': '--issuer',
  'identity.client_id': '--client-id',
  'identity.client_secret_file': '--client-secret-file',
  'identity.dev': '--dev-identity',
  'ca.key_passphrase_file': '--ca-key-passphrase-file',
}

function describeAsOption({ key, value, message, example }: ConfigProblem): string {
  const what = [FLAGS[key] ?? key, value, message].filter(Boolean).join(' ')
  return example === undefined ? what : `${what} (example: ${example})`
}

async function writeNewFile(file: string, text: string): Promise<void> {
  await makePrivateFolder(path.dirname(file))
  await writePrivateFile(file, text).catch((cause: unknown) => {
    if (cause instanceof PosternError) throw cause
    const { code } = cause as NodeJS.ErrnoException
    const reason =
      code === 'EEXIST' ? 'is there already and is not overwritten' : `cannot be written (${code})`
    throw new PosternError('USAGE_INVALID', `${file} ${reason}`, {
      hint: 'name another file with --config, or look at this one: postern-edge config check --config FILE',
      cause,
    })
  })
}

function composeConfig(options: InitOptions, cwd: string): string {
  const listen = options.listen ?? (options.devIdentity ? '127.0.0.1:8443' : ':443')
  const dataDir = options.dataDir === undefined ? 'data' : path.resolve(cwd, options.dataDir)
  return `# The edge of Postern. Every key is explained in docs/config.md; look at what is understood with
#   postern-edge config check --config FILE

# Services are one label below this name: *.DOMAIN has to lead here too.
domain: ${quote(options.domain)}

# The one TLS port.
listen: ${quote(listen)}

# Keys and store. Back it up: without its keys every certificate is worthless.
data_dir: ${quote(dataDir)}

${composeIdentity(options, cwd)}
# Who may expose services. Nobody, until you name them.
operators:
  email_domains: []
  email_addresses: []

# Who sees every service and the audit log.
admins:
  email_domains: []
  email_addresses: []

# How long a login lasts, and a client certificate within it.
certificates:
  session: 12h
  ttl: 5m

${composeCa(options, cwd)}
# Certificates for ssh: how long they are valid, and whether they name postern_ssh_signed, which opens every server that
# admits that name. New keys are ed25519, ecdsa or rsa.
# ssh:
#   ttl: 5m
#   shared_principal: true
#   ca_key_type: ed25519

# Who signs the audit log, how long it is kept, and who gets a copy. Note what "postern-edge audit key" prints elsewhere.
# audit:
#   checkpoint_key_file: /etc/postern-edge/audit-checkpoint.key
#   retention: 400d
#   sinks: [{ webhook: https://siem.mycorp.com/postern, secret_file: /etc/postern-edge/audit-webhook-secret }]

# A public certificate for DOMAIN and *.DOMAIN; without one the edge signs its own with an internal CA.
# tls:
#   certificate_file: /etc/postern-edge/tls/fullchain.pem
#   key_file: /etc/postern-edge/tls/privkey.pem
# Or it gets one by itself, at Let's Encrypt or another CA that speaks ACME, and renews it:
# tls:
#   acme:
#     directory: https://acme-v02.api.letsencrypt.org/directory
#     accept_terms: true
#     email: admin@mycorp.com
`
}

function composeCa({ caKeyPassphraseFile: file }: InitOptions, cwd: string): string {
  if (file === undefined) {
    return `# What the keys of the CAs are encrypted under: see postern-edge ca encrypt-keys --help.
# ca:
#   key_passphrase_file: /etc/postern-edge/ca-passphrase
`
  }
  return `# What the keys of the CAs are encrypted under. Without it the edge does not start: keep it, elsewhere than the backups.
ca:
  key_passphrase_file: ${quote(path.resolve(cwd, file))}
`
}

function composeIdentity(options: InitOptions, cwd: string): string {
  if (options.devIdentity) {
    return `# Believes any address: for trying things out, on this machine only.
identity:
  dev: true
`
  }
  const { issuer, clientId, clientSecretFile } = options
  if (issuer === undefined || clientId === undefined || clientSecretFile === undefined) {
    throw new PosternError('USAGE_INVALID', 'it is not said who signs people in', {
      hint: 'give --issuer, --client-id and --client-secret-file, or --dev-identity to try things out',
    })
  }
  return `# Who signs people in. Register https://DOMAIN/login/callback as the redirect URI there.
identity:
  issuer: ${quote(issuer)}
  client_id: ${quote(clientId)}
  # Readable by the edge's user only: chmod 600.
  client_secret_file: ${quote(path.resolve(cwd, clientSecretFile))}
  # Domains this provider may vouch for; empty means every domain.
  email_domains: []
`
}

/** JSON strings are YAML strings, whatever is in them. */
function quote(value: string): string {
  return JSON.stringify(value)
}

function tellNextSteps(
  options: InitOptions,
  config: EdgeConfig & { caFingerprint: string },
  parts: ProgramParts,
): void {
  const origin = publicOrigin(config)
  const steps = [
    ...(options.devIdentity
      ? []
      : [
          `register ${origin}/login/callback as a redirect URI at ${options.issuer}`,
          `put the client secret into ${options.clientSecretFile} (chmod 600)`,
          `let ${config.domain} and *.${config.domain} lead to this machine`,
        ]),
    `name the people who may expose services: operators in ${options.config}`,
    `postern-edge config check --config ${options.config}`,
    `postern-edge serve --config ${options.config}`,
    loginLine({ origin, caFingerprint: config.caFingerprint }),
  ]
  const lines = steps.map((step, index) => `  ${index + 1}. ${step}\n`)
  parts.stderr.write(
    `postern-edge: wrote ${options.config} and the keys in ${config.dataDir}\nNext:\n${lines.join('')}`,
  )
}
