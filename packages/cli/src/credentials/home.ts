import os from 'node:os'
import path from 'node:path'

/** Folder of everything this person's `postern` keeps: `$POSTERN_HOME`, else the platform's config folder. */
export function stateFolder(
  env: NodeJS.ProcessEnv = process.env,
  platform: NodeJS.Platform = process.platform,
): string {
  if (env.POSTERN_HOME) return path.resolve(env.POSTERN_HOME)
  if (platform === 'darwin') return path.join(os.homedir(), 'Library', 'Application Support', 'postern')
  if (platform === 'win32') {
    return path.join(env.APPDATA ?? path.join(os.homedir(), 'AppData', 'Roaming'), 'postern')
  }
  // the XDG specification says that a relative path is to be ignored
  const xdg = env.XDG_CONFIG_HOME
  return path.join(xdg && path.isAbsolute(xdg) ? xdg : path.join(os.homedir(), '.config'), 'postern')
}

export function edgesFolder(home: string): string {
  return path.join(home, 'edges')
}

/** @param origin `https://edge.example.com` or with a port */
export function edgeFolder(home: string, origin: string): string {
  const url = new URL(origin)
  return path.join(edgesFolder(home), `${url.hostname}_${url.port || '443'}`)
}
