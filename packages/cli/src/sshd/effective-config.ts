import { PosternError } from '@postern/shared/errors'
import { lastLines, runProgram } from './run-program.ts'

/** What sshd itself makes of its configuration. */

/** One sshd: its program and its main file. */
export interface SshdFiles {
  sshd: string
  configFile: string
}

/** Lower-case keyword → its values, in sshd's order. */
export type EffectiveConfig = ReadonlyMap<string, readonly string[]>

/** What setting up may change, and nothing else. */
const OURS: ReadonlySet<string> = new Set([
  'trustedusercakeys',
  'authorizedprincipalsfile',
  'revokedkeys',
  'hostcertificate',
])

/** @throws SSHD_SETUP_FAILED with sshd's own words */
export async function checkConfig({ sshd, configFile }: SshdFiles): Promise<void> {
  const { code, stderr } = await runProgram(sshd, ['-t', '-f', configFile])
  if (code === 0) return
  throw new PosternError('SSHD_SETUP_FAILED', `sshd does not accept ${configFile}: ${lastLines(stderr)}`, {
    hint: `mend it until this says nothing: ${sshd} -t -f ${configFile}`,
  })
}

/** `sshd -T` for a connection of this user from this machine. */
export async function readEffectiveConfig(
  { sshd, configFile }: SshdFiles,
  user: string,
): Promise<EffectiveConfig> {
  const connection = `user=${user},host=localhost,addr=127.0.0.1,laddr=127.0.0.1,lport=22`
  const { code, stdout, stderr } = await runProgram(sshd, ['-T', '-f', configFile, '-C', connection])
  if (code === 0) return parseEffectiveConfig(stdout)
  throw new PosternError('SSHD_SETUP_FAILED', `sshd -T fails for ${user}: ${lastLines(stderr)}`)
}

export function parseEffectiveConfig(text: string): EffectiveConfig {
  const config = new Map<string, string[]>()
  for (const line of text.split('\n')) {
    const [, keyword, value] = /^(\S+) ?(.*)$/.exec(line) ?? []
    if (keyword === undefined) continue
    config.set(keyword, [...(config.get(keyword) ?? []), value!])
  }
  return config
}

/** A keyword that a drop-in of ours must not have touched, but did: `passwordauthentication yes → no`. */
export function findSideEffect(before: EffectiveConfig, after: EffectiveConfig): string | undefined {
  for (const keyword of new Set([...before.keys(), ...after.keys()])) {
    const [old, now] = [before, after].map((config) => (config.get(keyword) ?? []).join(' '))
    if (!OURS.has(keyword) && old !== now) return `${keyword} ${old} → ${now}`
  }
  return undefined
}

export function firstValue(config: EffectiveConfig, keyword: string): string | undefined {
  const value = config.get(keyword)?.[0]
  return value === 'none' || value === '' ? undefined : value
}
