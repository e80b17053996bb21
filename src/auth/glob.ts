// Which repositories a rule is about, as people write it: `*` stands for any characters but a slash, `**` for any at
// all. `packs/net-*` are the packs whose id begins so, `mirror/**` everything below that folder, `**` the whole registry.

const grammar = /^(?:[a-z0-9._/-]|\*\*?)+$/
/** A regular expression tries every way in which the wildcards can share a name: with many, that takes for ever. */
const mostWildcards = 3

/** Whether the text is a glob over repository names: with three wildcards at most. */
export function isGlob(text: string): boolean {
  const wildcards = text.split(/\*+/).length - 1
  return text.length <= 255 && grammar.test(text) && !text.includes('***') && wildcards <= mostWildcards
}

/** The glob as a regular expression, in words that JavaScript and PostgreSQL read alike. */
export function patternOf(glob: string): string {
  const parts = glob.split(/(\*\*?)/).map((part) => {
    if (part === '**') return '.*'
    return part === '*' ? '[^/]*' : part.replaceAll('.', '\\.')
  })
  return `^${parts.join('')}$`
}

/**
 * Whether a name fits the glob, as the regular expression says it. That would try every way in which wildcards can share a
 * name, which whoever asks chooses; this goes over the name once for each wildcard.
 */
export function matcherOf(glob: string): { test(name: string): boolean } {
  const [head = '', ...parts] = glob.split(/(\*\*?)/)
  return {
    test(name) {
      if (!name.startsWith(head)) return false
      if (parts.length === 0) return name.length === head.length
      /** Where what has been looked at so far may end, in ascending order. */
      let ends = [head.length]
      for (let i = 0; i < parts.length; i += 2) {
        const isDeep = parts[i] === '**'
        const literal = parts[i + 1] ?? ''
        // Nothing comes behind the star: the last place where it may begin tells.
        if (literal === '' && i + 2 === parts.length) return isDeep || !name.includes('/', ends.at(-1))
        ends = endsBehind(name, literal, ends, isDeep)
        if (ends.length === 0) return false
      }
      return ends.at(-1) === name.length
    },
  }
}

/** Where a literal may end that stands behind a star, which begins at one of these places. */
function endsBehind(name: string, literal: string, begins: readonly number[], isDeep: boolean): number[] {
  const found: number[] = []
  let next = 0
  for (let at = begins[0] ?? name.length; at <= name.length; at++) {
    at = name.indexOf(literal, at)
    if (at < 0) break
    while ((begins[next] ?? Number.POSITIVE_INFINITY) <= at) next++
    if (isDeep || !name.slice(begins[next - 1], at).includes('/')) found.push(at + literal.length)
  }
  return found
}

/**
 * A glob in words that a database is quick with. `prefix`: what it spells out before its first `*`; `rest`: what may
 * stand behind that, where this is simple to say.
 * `like`: every name that fits is like this, in the sense of SQL. `slashes`: those that do are all names like it with so
 * many slashes, or with any number of them; undefined: only the regular expression tells.
 */
export type GlobShape = {
  prefix: string
  rest: 'nothing' | 'segment' | 'anything' | 'pattern'
  like: string
  slashes: number | 'any' | undefined
}

export function shapeOf(glob: string): GlobShape {
  const star = glob.indexOf('*')
  const like = glob.replaceAll('_', '\\_').replace(/\*+/g, '%')
  const slashes = slashesOf(glob)
  if (star < 0) return { prefix: glob, rest: 'nothing', like, slashes }
  const rest = { '*': 'segment', '**': 'anything' }[glob.slice(star)] ?? 'pattern'
  return { prefix: glob.slice(0, star), rest: rest as GlobShape['rest'], like, slashes }
}

/** With as many slashes as the glob itself spells out, there is none left for a star to stand for. */
function slashesOf(glob: string): GlobShape['slashes'] {
  const stars = new Set(glob.match(/\*+/g))
  if (!stars.has('**')) return glob.split('/').length - 1
  return stars.has('*') ? undefined : 'any'
}

/** How many characters it spells out: of two globs that match, the longer one is about less. */
export function weightOf(glob: string): number {
  return glob.replaceAll('*', '').length
}
