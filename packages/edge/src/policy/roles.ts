import { PosternError } from '@postern/shared/errors'
import type { AllowList, Identity } from '@postern/shared/identity'
import { findInList } from './evaluate.ts'

export type Role = 'operator' | 'admin'

/** What an identity may do at this edge, from the configuration as it is now. */
export interface Roles {
  of(identity: Pick<Identity, 'email'>): Role[]
  /** @throws OPERATOR_REQUIRED · ADMIN_REQUIRED */
  require(identity: Pick<Identity, 'email'>, role: Role): void
}

export function readRoles(config: { operators: AllowList; admins: AllowList }): Roles {
  const lists: Record<Role, AllowList> = { operator: config.operators, admin: config.admins }
  const has = (identity: Pick<Identity, 'email'>, role: Role) =>
    findInList(lists[role], identity) !== undefined
  return {
    of: (identity) => (['operator', 'admin'] as const).filter((role) => has(identity, role)),
    require(identity, role) {
      if (has(identity, role)) return
      if (role === 'operator') {
        throw new PosternError('OPERATOR_REQUIRED', `${identity.email} may not expose services at this edge`)
      }
      throw new PosternError('ADMIN_REQUIRED', `${identity.email} is not an administrator of this edge`)
    },
  }
}
