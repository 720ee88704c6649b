import { spawnSync } from 'node:child_process'

/** systemd's own program about units, without a pager. */
export function analyze(...args: string[]) {
  return spawnSync('systemd-analyze', args, { encoding: 'utf8', env: { ...process.env, SYSTEMD_PAGER: '' } })
}

/** What systemd finds wrong with a unit. Units of Debian that it reads beside it have words of their own.
 *  @returns '' when it finds nothing */
export function verifyUnit(file: string): string {
  const { stdout, stderr } = analyze('verify', '--man=no', file)
  const lines = (stdout + stderr).split('\n').filter((line) => !/^(\/usr)?\/lib\/systemd\//.test(line))
  return lines.join('\n')
}
