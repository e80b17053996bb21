import type { RepositoryName } from '../oci/name.ts'
import { type GlobShape, matcherOf, patternOf, shapeOf, weightOf } from './glob.ts'

/**
 * What may be done to a repository. `push` makes what is not there; `overwrite` makes a tag name something else, which
 * is another right; `delete` includes it, and changes the state of versions. On the registry as a whole, `*`: `pull`
 * reads its jobs, keys and metrics and takes the right to read every repository; everything else is for administrators.
 */
export const actions = ['pull', 'push', 'overwrite', 'delete'] as const
export type Action = (typeof actions)[number]

/** A glob over repository names, and what may be done to those of which it is the longest that matches. */
export type Grant = { readonly glob: string; readonly actions: readonly Action[] }

type Pattern = {
  glob: string
  matcher: ReturnType<typeof matcherOf>
  source: string
  weight: number
  actions: ReadonlySet<Action>
}

/**
 * Grants made ready for many questions, the longest first. `public`: what everybody may read, which is so whatever the
 * others say, for they would only have to show nothing. `open`: everything may be done.
 */
export type Grants = {
  readonly patterns: readonly Pattern[]
  readonly public: readonly Pattern[]
  readonly open: boolean
}

/** Who asks, by what they showed, and what they may do. */
export type Principal = {
  /** As the log and the audit show it. */
  readonly name: string
  readonly kind: 'everyone' | 'anonymous' | 'user' | 'authority' | 'workload' | 'token'
  /** What they showed: nothing, a credential of their own, or a token of /token, which names what it is for. */
  readonly shown: 'nothing' | 'credential' | 'registry token'
  readonly grants: Grants
  /** What lists are filtered by; undefined: a token of /token that was not asked for with the scope for it. */
  readonly listing: Grants | undefined
  readonly admin: boolean
  /** The API token that stands behind it, if one does. */
  readonly tokenId?: string
}

/** Makes grants ready. `delete` includes `overwrite`. */
export function compileGrants(grants: readonly Grant[]): Grants {
  const patterns = grants.map(({ glob, actions }) => ({
    glob,
    matcher: matcherOf(glob),
    source: patternOf(glob),
    weight: weightOf(glob),
    actions: new Set(actions.includes('delete') ? [...actions, 'overwrite' as const] : actions),
  }))
  // Of equal length, those that let read stand first: where they meet, both count.
  patterns.sort((a, b) => b.weight - a.weight || Number(b.actions.has('pull')) - Number(a.actions.has('pull')))
  return { patterns, public: [], open: false }
}

export const allActions: Grants = { ...compileGrants([{ glob: '**', actions }]), open: true }

/** With AUTH=none: everyone may do everything. */
export const everyone: Principal = {
  name: 'anonymous',
  kind: 'everyone',
  shown: 'credential',
  grants: allActions,
  listing: allActions,
  admin: true,
}

/** Who shows nothing. `pull`: globs of what everybody may read. */
export function anonymousWith(pull: readonly string[]): Principal {
  const grants = compileGrants(pull.map((glob) => ({ glob, actions: ['pull'] })))
  return { name: 'anonymous', kind: 'anonymous', shown: 'nothing', grants, listing: grants, admin: false }
}

/** Somebody, who may read what everybody may as well. */
export function amongEverybody(principal: Principal, anonymous: Principal): Principal {
  const { patterns } = anonymous.grants
  if (patterns.length === 0) return principal
  const { grants, listing } = principal
  return {
    ...principal,
    grants: { ...grants, public: patterns },
    listing: listing && { ...listing, public: patterns },
  }
}

/** Whether the principal may do that: the longest of the globs that match says, and what none matches is denied. */
export function mayAccess(principal: Principal, repository: RepositoryName | '*', action: Action): boolean {
  if (principal.grants.open) return true
  if (repository === '*') return principal.admin || (action === 'pull' && readsAll(principal.grants))
  return granted(principal.grants, repository, action)
}

/** Whether these grants let read a repository. */
export function reads(grants: Grants, repository: RepositoryName): boolean {
  return grants.open || granted(grants, repository, 'pull')
}

function granted({ patterns, public: all }: Grants, repository: string, action: Action): boolean {
  if (action === 'pull' && all.some(({ matcher }) => matcher.test(repository))) return true
  let weight = -1
  for (const pattern of patterns) {
    if (pattern.weight < weight) return false
    if (!pattern.matcher.test(repository)) continue
    if (pattern.actions.has(action)) return true
    weight = pattern.weight
  }
  return false
}

/** What of these actions the principal may do to a repository. */
export function actionsOn(principal: Principal, repository: RepositoryName): Action[] {
  return actions.filter((action) => mayAccess(principal, repository, action))
}

/** Whether there is no repository that may not be read. */
function readsAll({ patterns, public: all }: Grants): boolean {
  if (all.some(({ source }) => source === '^.*$')) return true
  return patterns.at(-1)?.source === '^.*$' && patterns.every((pattern) => pattern.actions.has('pull'))
}

/** Whether there may be a repository that can be read. */
export function readsSome({ patterns, public: all }: Grants): boolean {
  return [...all, ...patterns].some((pattern) => pattern.actions.has('pull'))
}

/** Whether there may be a repository that can be pushed to. */
export function writesSome({ patterns }: Grants): boolean {
  return patterns.some((pattern) => pattern.actions.has('push'))
}

/** The first of these globs that matches a name says whether it may be listed; none: it may not. */
export type ListFilter = readonly (GlobShape & { pattern: string; readable: boolean })[]

const listFilters = new WeakMap<Grants, ListFilter>()

/** What a list is to be filtered by; undefined: by nothing. The same object for the same grants. */
export function listFilter(grants: Grants): ListFilter | undefined {
  if (grants.open || readsAll(grants)) return undefined
  const known = listFilters.get(grants)
  if (known) return known
  const filter = [...grants.public, ...grants.patterns].map(({ glob, source, actions }) => ({
    ...shapeOf(glob),
    pattern: source,
    readable: actions.has('pull'),
  }))
  listFilters.set(grants, filter)
  return filter
}
