import type { Action } from './access.ts'

/** What a client asks a token for. Source: distribution's token scope grammar. */
export type Scope = { type: string; name: string; actions: string[] }

/** More than this of them are not looked at: a client asks for a handful. */
const mostScopes = 100

/**
 * Reads scopes, each `type:name:actions`, several in one text separated by spaces. The name may have colons in it
 * (`host:port/name`). What cannot be read is left out, never an error: it is granted nothing.
 */
export function parseScopes(texts: readonly string[]): Scope[] {
  const words = texts.flatMap((text) => text.split(' ')).filter(Boolean)
  return words.slice(0, mostScopes).flatMap((word) => {
    const first = word.indexOf(':')
    const last = word.lastIndexOf(':')
    if (first < 0 || first === last) return []
    const type = word.slice(0, first).replace(/\(.*\)$/, '')
    return [
      {
        type,
        name: word.slice(first + 1, last),
        actions: word
          .slice(last + 1)
          .split(',')
          .filter(Boolean),
      },
    ]
  })
}

/**
 * What of a repository's scope is granted: what was asked and may be done, `*` being all. To push is to move a tag as
 * well as far as clients know, so who may overwrite is let do that with it.
 */
export function grantedOf(asked: readonly string[], may: readonly Action[]): Action[] {
  const all = asked.includes('*')
  return may.filter(
    (action) =>
      all || asked.includes(action) || (action === 'overwrite' && (asked.includes('push') || asked.includes('delete'))),
  )
}

/** The scope that an action takes, as a challenge names it. To push takes to read, as clients look first. */
export function scopeFor(repository: string, action: Action): string {
  if (repository === '*') return 'registry:catalog:*'
  const asked = { pull: 'pull', push: 'pull,push', overwrite: 'pull,push', delete: 'delete' }[action]
  return `repository:${repository}:${asked}`
}
