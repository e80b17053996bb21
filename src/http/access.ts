import type { IncomingMessage } from 'node:http'
import type { Context } from 'hono'
import {
  type Action,
  actionsOn,
  type ListFilter,
  listFilter,
  mayAccess,
  type Principal,
  reads,
  readsSome,
  writesSome,
} from '../auth/access.ts'
import { service } from '../auth/registry-token.ts'
import { scopeFor } from '../auth/scope.ts'
import type { Deps } from '../deps.ts'
import { Failure } from '../errors.ts'
import type { RepositoryName } from '../oci/name.ts'
import { type PackId, packIdOf, repositoryOf } from '../packs/pack.ts'
import { refuseForeignPages } from './foreign-pages.ts'
import { identify, requireLive } from './identify.ts'
import { type Limits, openLimits } from './limits.ts'
import { type Origins, openOrigins } from './origin.ts'
import type { Env } from './routes.ts'

// The one gate. Who asks is found out before a request reaches its route (`admit`); what they may do is decided beside the
// route, by the functions below. What may not be read does not exist: the answer is the one for a repository or a pack
// that there is not. It follows from what was asked and from the rights of who asks, never from what is there.

/** What the gate needs beside the request. */
export type Gate = Origins & { deps: Deps; limits: Limits }

/** `shared`: this is one of several processes that count requests together. */
export function openGate(deps: Deps, { shared }: { shared: boolean }): Gate {
  const limits = openLimits({ requestsAMinute: deps.config.rateLimit, shared })
  return { deps, limits, ...openOrigins(deps.config.auth) }
}

type Bindings = Env['Bindings']

const openPaths = new Set(['/healthz', '/readyz', '/openapi.json'])

/**
 * Finds out who asks, and counts the request. Undefined: it is done at once. Throws DENIED where a page of somebody else
 * asks; rejects with UNAUTHORIZED, TOOMANYREQUESTS, UNAVAILABLE.
 */
export function admit(gate: Gate, bindings: Bindings): Promise<void> | undefined {
  const { auth } = gate.deps
  const { authorization } = bindings.incoming.headers
  bindings.gate = gate
  // Whoever watches over processes is let in whatever they show.
  if (openPaths.has(bindings.incoming.url ?? '')) {
    bindings.principal = auth.anonymous
    return undefined
  }
  refuseForeignPages(gate.deps.config, gate, bindings.incoming)
  if (auth.mode !== 'none' && authorization !== undefined) return admitBy(gate, bindings)
  bindings.principal = auth.anonymous
  return gate.limits.counts ? gate.limits.count(gate.addressOf(bindings.incoming)) : undefined
}

async function admitBy(gate: Gate, bindings: Bindings): Promise<void> {
  const { deps, limits } = gate
  const { incoming } = bindings
  const address = gate.addressOf(incoming)
  bindings.principal = await identify(deps, limits, incoming, address).catch(async (error) => {
    // Whoever shows what does not hold is nobody in particular, and counts as one.
    if (error instanceof Failure && error.key === 'UNAUTHORIZED') await limits.count(address)
    throw error
  })
  await limits.count(payer(bindings.principal, address))
}

/** Under what name a request counts against limits: whoever is nobody in particular counts by address. */
function payer({ kind, tokenId, name }: Principal, address: string): string {
  return kind === 'anonymous' || kind === 'everyone' ? address : `${kind} ${tokenId ?? name}`
}

export function payerOf(c: Context<Env>): string {
  const { gate, incoming } = c.env
  return payer(principalOf(c), gate?.addressOf(incoming) ?? '')
}

/** A refusal of a credential that does not hold, with what to do about it. Source: RFC 6750, section 3. */
export function challenged({ gate, incoming }: Bindings, failure: Failure): Failure {
  if (failure.key !== 'UNAUTHORIZED' || !gate || failure.headers['www-authenticate'] !== undefined) return failure
  const { detail, cause } = failure
  const headers = { 'www-authenticate': challenge(gate, incoming, { error: 'invalid_token' }) }
  return new Failure('UNAUTHORIZED', { detail, cause, headers })
}

/** Where to get a token, and for what. Source: distribution's token specification, "How to authenticate". */
function challenge(gate: Gate, incoming: IncomingMessage, about: { scope?: string; error?: string }): string {
  const facts = { realm: `${gate.originOf(incoming)}/token`, service, ...about }
  return `Bearer ${Object.entries(facts)
    .map(([name, value]) => `${name}="${value}"`)
    .join(',')}`
}

/** Who asks. */
export function principalOf(c: Context<Env>): Principal {
  const { principal } = c.env
  if (!principal) throw new Error('the request has not gone through the gate')
  return principal
}

/**
 * Throws unless whoever asks may do that: UNAUTHORIZED with a challenge where other credentials could help; what may not
 * be read is unknown; else DENIED. Stands beside every route, before anything is read or told. `source`: another
 * repository that the request reads from, if it may: the token that it is to come back with is for that too.
 */
export function requireAccess(
  c: Context<Env>,
  repository: RepositoryName | '*',
  action: Action,
  source?: RepositoryName,
): void {
  const principal = principalOf(c)
  c.env.repository = repository
  if (mayAccess(principal, repository, action)) return
  const scopes = [scopeFor(repository, action), ...(source === undefined ? [] : [scopeFor(source, 'pull')])]
  requireCredential(c, scopes.join(' '), repository !== '*')
  if (repository !== '*' && isHidden(c, principal, repository, action)) {
    c.env.hidden = true
    throw unknown(c, repository)
  }
  throw new Failure('DENIED', { detail: { repository, action } })
}

/** Whether a repository may be read. Throws only where other credentials could help. */
export function isReadable(c: Context<Env>, repository: RepositoryName): boolean {
  c.env.repository = repository
  if (mayAccess(principalOf(c), repository, 'pull')) return true
  requireCredential(c, scopeFor(repository, 'pull'), true)
  c.env.hidden = true
  return false
}

/** Throws UNAUTHORIZED where nothing was shown, or a token that could be exchanged for one with this scope. */
function requireCredential(c: Context<Env>, scope: string | undefined, exchangeable: boolean): void {
  const { gate, incoming } = c.env
  const { shown } = principalOf(c)
  if (!gate || shown === 'credential' || (shown === 'registry token' && !exchangeable)) return
  const about = { ...(scope === undefined ? {} : { scope }), ...(shown === 'nothing' ? {} : insufficient) }
  const headers = { 'www-authenticate': challenge(gate, incoming, about) }
  throw new Failure('UNAUTHORIZED', { detail: scope === undefined ? {} : { scope }, headers })
}

const insufficient = { error: 'insufficient_scope' }

/** Throws UNAUTHORIZED unless something was shown, be it that nobody stands behind it. */
export function requireLogin(c: Context<Env>): void {
  requireCredential(c, undefined, false)
}

/**
 * Throws unless there is something that whoever asks may push to: for what is stored before it is known where it belongs,
 * and whether that may be.
 */
export function requirePusher(c: Context<Env>): void {
  if (writesSome(principalOf(c).grants)) return
  requireCredential(c, undefined, true)
  throw new Failure('DENIED', { detail: 'this takes the right to push' })
}

/** Throws DENIED unless an administrator asks. */
export function requireAdmin(c: Context<Env>): void {
  if (principalOf(c).admin) return
  requireCredential(c, undefined, false)
  throw new Failure('DENIED', { detail: 'this takes the rights of an administrator' })
}

/**
 * What a list of repositories is to be filtered by; undefined: by nothing. Throws UNAUTHORIZED where there is nothing
 * that whoever asks could be shown, but other credentials could help.
 */
export function requireListing(c: Context<Env>): ListFilter | undefined {
  const { listing, shown } = principalOf(c)
  if (!listing || (shown === 'nothing' && !readsSome(listing))) requireCredential(c, scopeFor('*', 'pull'), true)
  return listing ? listFilter(listing) : []
}

function isHidden(c: Context<Env>, principal: Principal, repository: RepositoryName, action: Action): boolean {
  if (action === 'pull') return true
  const makesNew = c.req.method === 'POST' || c.req.path.startsWith('/v2/')
  return !makesNew && actionsOn(principal, repository).length === 0
}

/** The answer for what there is not, in the words that the route has for it. */
function unknown(c: Context<Env>, repository: RepositoryName): Failure {
  const packId = packIdOf(repository)
  if (!c.req.path.startsWith('/v2/'))
    return new Failure('PACK_UNKNOWN', { detail: `there is no pack ${packId ?? repository}` })
  const route = c.env.route ?? ''
  const name = repository
  if (route.endsWith('/manifests/:reference'))
    return new Failure('MANIFEST_UNKNOWN', { detail: { name, reference: c.req.param('reference') } })
  if (route.endsWith('/blobs/:digest'))
    return new Failure('BLOB_UNKNOWN', { detail: { name, digest: c.req.param('digest') } })
  return new Failure('NAME_UNKNOWN', { detail: { name } })
}

/** Finds out again who asks, for an answer that goes on. Throws UNAUTHORIZED, UNAVAILABLE. */
export async function admitAgain(c: Context<Env>, deps: Deps): Promise<void> {
  const { gate, incoming } = c.env
  if (gate) c.env.principal = await identify(deps, gate.limits, incoming, gate.addressOf(incoming))
}

/**
 * Asked before what has come is published, for a body may be on its way for days. Throws UNAUTHORIZED where the API token
 * behind whoever asks has ended since; what else was shown is good for as long as what it began.
 */
export async function requireStill(c: Context<Env>, deps: Deps): Promise<void> {
  const principal = principalOf(c)
  if (principal.tokenId !== undefined) await requireLive(deps, principal)
}

/** Of which packs whoever asks may know; of what is of no pack, administrators may. */
export function mayKnowFor(c: Context<Env>): (packId: PackId | undefined) => boolean {
  const { listing, admin } = principalOf(c)
  return (packId) => (packId === undefined ? admin : listing !== undefined && reads(listing, repositoryOf(packId)))
}

/** Which packs whoever asks may read. */
export function mayPullFor(c: Context<Env>): (packId: PackId) => boolean {
  const principal = principalOf(c)
  return (packId) => mayAccess(principal, repositoryOf(packId), 'pull')
}
