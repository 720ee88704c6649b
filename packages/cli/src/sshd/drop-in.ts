import path from 'node:path'
import { PosternError } from '@postern/shared/errors'

/** What is written for sshd, as text. Nothing here touches a file. */

/** Where everything lies that sshd reads of ours: beside its main file. */
export interface SshdLayout {
  folder: string
  userCaFile: string
  principalsFolder: string
  krlFile: string
  certificateFolder: string
}

export function layoutOf(configFile: string): SshdLayout {
  const folder = path.join(path.dirname(path.resolve(configFile)), 'postern')
  if (/["\n\\]/.test(folder)) {
    throw new PosternError('USAGE_INVALID', `sshd cannot read a folder with this name: ${folder}`)
  }
  return {
    folder,
    userCaFile: path.join(folder, 'user-ca.pub'),
    principalsFolder: path.join(folder, 'principals'),
    krlFile: path.join(folder, 'revoked.krl'),
    certificateFolder: path.join(folder, 'host-certificates'),
  }
}

/** @param hostCertificates files, none when there are none */
export function dropInText(
  serviceHost: string,
  layout: SshdLayout,
  hostCertificates: readonly string[],
): string {
  return [
    `# Certificates of Postern for ${serviceHost}. Taken back by: postern sshd setup --undo`,
    `TrustedUserCAKeys "${layout.userCaFile}"`,
    '# who has no file there gets in with no certificate',
    `AuthorizedPrincipalsFile "${layout.principalsFolder.replaceAll('%', '%%')}/%u"`,
    '# sshd refuses every key while this file is missing: take this line out before the file',
    `RevokedKeys "${layout.krlFile}"`,
    ...hostCertificates.map((file) => `HostCertificate "${file}"`),
    '',
  ].join('\n')
}

export function principalsText(serviceHost: string, principals: readonly string[]): string {
  return `${[...new Set([serviceHost, ...principals])].join('\n')}\n`
}

/** A local account, as a file name too: sshd puts it in the place of `%u`. */
export function parseLocalUser(text: string): string {
  if (/^[A-Za-z_][A-Za-z0-9_.-]{0,63}$/.test(text)) return text
  throw new PosternError('USAGE_INVALID', `${JSON.stringify(text)} is not the name of a local user`)
}
