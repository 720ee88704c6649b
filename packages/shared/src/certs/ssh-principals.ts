import { PosternError } from '../errors.ts'

/** A name in a certificate that sshd compares with what it knows, byte by byte. */
export type SshPrincipal = string & { readonly __brand: 'SshPrincipal' }

const MAX_PRINCIPAL_BYTES = 64
const MAX_HOST_PRINCIPAL_BYTES = 253
/** Printable ASCII without what some tool takes for syntax: a comma separates names for `ssh-keygen -n`, * ? and !
 *  are patterns, # and " mean something in an AuthorizedPrincipalsFile, \ and % in ssh_config. */
const PRINCIPAL = /^[A-Za-z0-9._:/@+=~$&'^`{|}-]+$/

/** @throws PRINCIPAL_INVALID */
export function parseSshPrincipal(text: string): SshPrincipal {
  return parse(text, MAX_PRINCIPAL_BYTES)
}

/** A host name of ours: longer than a person's name may be, made of labels only.
 *  @throws PRINCIPAL_INVALID */
export function parseSshHostPrincipal(text: string): SshPrincipal {
  if (!/^[a-z0-9.-]+$/.test(text)) throw invalid(text, 'is not a host name')
  return parse(text, MAX_HOST_PRINCIPAL_BYTES)
}

function parse(text: string, maxBytes: number): SshPrincipal {
  if (text === '') throw invalid(text, 'is empty')
  if (Buffer.byteLength(text) > maxBytes) throw invalid(text.slice(0, 80), `is longer than ${maxBytes} bytes`)
  if (!PRINCIPAL.test(text)) {
    throw invalid(text, 'has a character that a principal may not have')
  }
  if (text.startsWith('-')) throw invalid(text, 'begins with a hyphen')
  return text as SshPrincipal
}

/** Names that mean power, or a program, on somebody's server. Compared in lower case. */
const DENIED_USERS: ReadonlySet<string> = new Set(
  `root toor admin administrator adm sysadmin superuser su sudo wheel operator daemon bin sys sync games man lp mail
  news uucp proxy www-data www apache nginx httpd backup list irc gnats nobody nogroup messagebus dbus sshd ssh ftp
  ntp chrony syslog rsyslog postfix dovecot bind named dnsmasq tcpdump tss polkitd rtkit avahi colord gdm lightdm
  systemd systemd-network systemd-resolve systemd-timesync systemd-coredump systemd-oom docker podman kube kubernetes
  etcd containerd libvirt qemu kvm vagrant ansible puppet chef salt jenkins gitlab gitlab-runner git svn hg postgres
  postgresql mysql mariadb mongodb redis memcached elasticsearch oracle sqlserver rabbitmq kafka zookeeper vault
  consul nomad prometheus grafana ubuntu debian centos fedora rocky almalinux ec2-user azureuser cloud-user core
  opc pi kali vyos bitnami default user guest test service support info postmaster hostmaster webmaster abuse
  security deploy deployer`
    .split(/\s+/)
    .filter((name) => name !== ''),
)

/** Whether `name` may not become a principal by a coincidence, as somebody's local part or group. */
export function isDeniedUser(name: string): boolean {
  const lower = name.toLowerCase()
  return DENIED_USERS.has(lower) || lower.startsWith('systemd-') || lower.startsWith('_')
}

function invalid(text: string, reason: string): PosternError {
  return new PosternError('PRINCIPAL_INVALID', `the principal ${JSON.stringify(text)} ${reason}`)
}
