import { ACME_TARGET } from './acme-target.ts'
import { BINARY_TARGETS } from './binary-targets.ts'
import { CHANGES_TARGET } from './changes-target.ts'
import { COMPANY_PROXY_TARGET } from './company-proxy-target.ts'
import { CRL_TARGET } from './crl-target.ts'
import { EDGE_CAS_TARGET } from './edge-cas-target.ts'
import { FOREIGN_CRL_TARGET } from './foreign-crl-target.ts'
import { KRL_TARGET } from './krl-target.ts'
import { LISTENERS_TARGET } from './listeners-target.ts'
import { MESSAGE_STREAM_TARGET } from './message-stream-target.ts'
import { PROXY_TARGETS } from './proxy-targets.ts'
import { RENEWAL_TARGET } from './renewal-target.ts'
import { SSH_TARGETS } from './ssh-targets.ts'
import { SUBJECT_TARGET } from './subject-target.ts'
import type { Target } from './target.ts'
import { TEXT_TARGETS } from './text-targets.ts'

export const TARGETS: readonly Target[] = [
  ...BINARY_TARGETS,
  ...TEXT_TARGETS,
  LISTENERS_TARGET,
  RENEWAL_TARGET,
  KRL_TARGET,
  CRL_TARGET,
  COMPANY_PROXY_TARGET,
  MESSAGE_STREAM_TARGET,
  CHANGES_TARGET,
  ACME_TARGET,
  SUBJECT_TARGET,
  FOREIGN_CRL_TARGET,
  EDGE_CAS_TARGET,
  ...SSH_TARGETS,
  ...PROXY_TARGETS,
]
