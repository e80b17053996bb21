import type { Context } from 'hono'
import { type Action, anonymous, mayAccess, type Principal } from '../auth/access.ts'
import { Failure } from '../errors.ts'
import type { RepositoryName } from '../oci/name.ts'
import { type PackId, repositoryOf } from '../packs/pack.ts'
import type { Env } from './routes.ts'

/** Who asks. */
export function principalOf(c: Context<Env>): Principal {
  c.env.principal ??= anonymous
  return c.env.principal
}

/** Throws DENIED unless whoever asks may do that. Stands beside every route, before anything is read or told. */
export function requireAccess(c: Context<Env>, repository: RepositoryName | '*', action: Action): void {
  if (!mayAccess(principalOf(c), repository, action)) throw new Failure('DENIED', { detail: { repository, action } })
}

/** Which packs whoever asks may read. */
export function mayPullFor(c: Context<Env>): (packId: PackId) => boolean {
  const principal = principalOf(c)
  return (packId) => mayAccess(principal, repositoryOf(packId), 'pull')
}
