import type { RepositoryName } from '../oci/name.ts'

/** Who asks. Without authentication configured, everyone is anonymous. */
export type Principal = { readonly name: string }

export const anonymous: Principal = { name: 'anonymous' }

/** What may be done to a repository; `*` on the whole registry: its catalog. */
export type Action = 'pull' | 'push' | 'delete'

/** Whether the principal may do that. The policy is open: everyone may do everything. */
export function mayAccess(_principal: Principal, _repository: RepositoryName | '*', _action: Action): boolean {
  return true
}
