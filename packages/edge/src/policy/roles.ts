import { type ErrorCode, PosternError } from '@postern/shared/errors'
import type { AllowList, Identity } from '@postern/shared/identity'
import { findInList } from './evaluate.ts'

/** Operators expose services and change their own; auditors read everything and change nothing; admins do all that
 *  and change everything, but expose no services by that. Everybody else uses what admits them. */
export const ROLES = ['operator', 'auditor', 'admin'] as const
export type Role = (typeof ROLES)[number]

/** What an identity may do at this edge, from the configuration as it is now. */
export interface Roles {
  of(identity: Pick<Identity, 'email'>): Role[]
  /** An admin may read whatever an auditor may.
   *  @throws OPERATOR_REQUIRED · AUDITOR_REQUIRED · ADMIN_REQUIRED */
  require(identity: Pick<Identity, 'email'>, role: Role): void
}

const REFUSALS: Readonly<Record<Role, [ErrorCode, string]>> = {
  operator: ['OPERATOR_REQUIRED', 'may not expose services at this edge'],
  auditor: ['AUDITOR_REQUIRED', 'is neither an auditor nor an administrator of this edge'],
  admin: ['ADMIN_REQUIRED', 'is not an administrator of this edge'],
}

export function readRoles(config: { operators: AllowList; auditors: AllowList; admins: AllowList }): Roles {
  const lists: Record<Role, AllowList> = {
    operator: config.operators,
    auditor: config.auditors,
    admin: config.admins,
  }
  const has = (identity: Pick<Identity, 'email'>, role: Role) =>
    findInList(lists[role], identity) !== undefined
  return {
    of: (identity) => ROLES.filter((role) => has(identity, role)),
    require(identity, role) {
      if (has(identity, role) || (role === 'auditor' && has(identity, 'admin'))) return
      const [code, sentence] = REFUSALS[role]
      throw new PosternError(code, `${identity.email} ${sentence}`)
    },
  }
}
