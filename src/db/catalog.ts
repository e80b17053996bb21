import type { Sql } from './client.ts'

/**
 * The first of these globs that matches a name says whether it may be listed; none: it may not. `prefix`: what it spells
 * out before its first star; `rest`: what may stand behind that; `like`: what every name that matches is like, in the
 * sense of SQL; `slashes`: how many those have that match, where all of them do; `pattern`: the whole as a regular
 * expression.
 */
export type NameFilter = readonly {
  prefix: string
  rest: 'nothing' | 'segment' | 'anything' | 'pattern'
  like: string
  slashes: number | 'any' | undefined
  pattern: string
  readable: boolean
}[]

/** Behind every character that a name may have comes this one, in byte order. */
const pastNames = '\x7f'

type Asked = {
  /** What stands for the name in the statement. */
  name: string
  /** Takes a value along; answers what stands for it in the statement. */
  place: (value: string) => string
  /** What every name that is asked about begins with: of the filter, only what can matter then is asked. */
  beginning?: string
}

/** Whether a name may be listed: an SQL condition, as text without any value in it. */
export function listable(filter: NameFilter, { name, place, beginning = '' }: Asked): string {
  const about = filter.filter(({ prefix, rest }) =>
    rest === 'nothing' ? prefix.startsWith(beginning) : prefix.startsWith(beginning) || beginning.startsWith(prefix),
  )
  const decided = about.findIndex(({ prefix, rest }) => rest === 'anything' && beginning.startsWith(prefix))
  const otherwise = about[decided]?.readable ?? false
  const before = decided < 0 ? about : about.slice(0, decided)
  if (before.length === 0) return String(otherwise)
  const [first] = before
  if (before.length === 1 && first?.readable && !otherwise) return `(${matching(first, { name, place, beginning })})`
  const cases = before.map((glob) => `when ${matching(glob, { name, place, beginning })} then ${glob.readable}`)
  return `case ${cases.join(' ')} else ${otherwise} end`
}

/** A regular expression takes ten times as long as what says the same of nearly every glob there is. */
function matching(glob: NameFilter[number], { name, place, beginning }: Required<Asked>): string {
  const { prefix, rest, like, slashes, pattern } = glob
  if (rest === 'pattern') {
    const fits = `${name} like ${place(like)}`
    if (slashes === 'any') return fits
    if (slashes === undefined) return `${fits} and ${name} ~ ${place(pattern)}`
    return `${fits} and ${name} not like ${place(`${'%/'.repeat(slashes + 1)}%`)}`
  }
  if (rest === 'nothing') return `${name} = ${place(prefix)}`
  const starts = beginning.startsWith(prefix) ? 'true' : `starts_with(${name}, ${place(prefix)})`
  // In a pattern of LIKE, an underline in a name is to be none but itself.
  return rest === 'anything' ? starts : `${starts} and ${name} not like ${place(`${prefix.replaceAll('_', '\\_')}%/%`)}`
}

/** Names that begin so, before `end`. `exact`: of globs without a star only, these are all there can be. */
type Range = { readonly beginning: string; readonly end: string; readonly exact?: readonly string[] }

/** Outside of these there is nothing to list. In order, and no name is in two of them. */
function ranges(filter: NameFilter | undefined): Range[] {
  if (!filter) return [{ beginning: '', end: pastNames }]
  const readable = filter.filter((glob) => glob.readable)
  const kept: string[] = []
  // In order, a beginning comes before all that begins with it.
  for (const prefix of readable.map((glob) => glob.prefix).sort())
    if (!kept.length || !prefix.startsWith(kept.at(-1) as string)) kept.push(prefix)
  const isReadable = readableIn(filter)
  const all = kept.map((beginning): Range => {
    const within = readable.filter(({ prefix }) => prefix.startsWith(beginning))
    const range = { beginning, end: beginning + pastNames }
    if (within.some(({ rest }) => rest !== 'nothing')) return range
    return { ...range, exact: within.map(({ prefix }) => prefix).filter(isReadable) }
  })
  return all.filter(({ exact }) => exact?.length !== 0)
}

/** What the filter says of a name. A policy can have a thousand globs without a star: those are compared as they are. */
function readableIn(filter: NameFilter): (name: string) => boolean {
  const globs = filter.map(({ prefix, rest, pattern, readable }) => {
    const whole = rest === 'nothing' ? undefined : new RegExp(pattern)
    return { readable, matches: (name: string) => (whole ? whole.test(name) : name === prefix) }
  })
  return (name) => globs.find(({ matches }) => matches(name))?.readable ?? false
}

/** `values`: behind the last name of the page before, and the limit. */
type Statement = { readonly text: string; readonly values: readonly string[] }

/** What a filter comes to: its ranges, and the statements that were needed so far, by the numbers of their ranges. */
type Lookup = { readonly ranges: readonly Range[]; readonly statements: Map<string, Statement> }

const lookups = new WeakMap<NameFilter, Lookup>()
const unfiltered: Lookup = { ranges: ranges(undefined), statements: new Map() }

/** Made once for a filter: to make it for every page would take a twentieth of the page's time. */
function lookupOf(filter: NameFilter | undefined): Lookup {
  if (!filter) return unfiltered
  const known = lookups.get(filter)
  if (known) return known
  const lookup = { ranges: ranges(filter), statements: new Map() }
  lookups.set(filter, lookup)
  return lookup
}

type Page = { last: string; limit: number; filter?: NameFilter | undefined }

/**
 * Repositories that have a manifest and may be listed, after `last` in byte order, at most `limit`. Only where there can
 * be some is looked: of many repositories, somebody may read a few. A page mostly ends within the first range that has
 * many, so that the ranges behind it are asked only where it does not: merging them takes longer than reading the page.
 */
export async function listRepositories(sql: Sql, { last, limit, filter }: Page): Promise<string[]> {
  const lookup = lookupOf(filter)
  const { length } = lookup.ranges
  const from = firstOf(lookup.ranges, 0, ({ end }) => last < end)
  const to = Math.min(length, firstOf(lookup.ranges, from, ({ exact }) => !exact) + 1)
  const read = async (some: [from: number, to: number], most: number) => {
    const { text, values } = statementOf(lookup, filter, some)
    const [row] = await sql.unsafe<{ names: string[] }[]>(text, [last, most, ...values], { prepare: true })
    return inOrder(row?.names ?? []).slice(0, most)
  }
  const found = from < to ? await read([from, to], limit) : []
  if (found.length === limit || to >= length) return found
  return [...found, ...(await read([to, length], limit - found.length))]
}

/** The number of the first range from there on of which it is so; how many there are where it is of none. */
function firstOf(all: readonly Range[], from: number, is: (range: Range) => boolean): number {
  for (let at = from; at < all.length; at++) if (is(all[at] as Range)) return at
  return all.length
}

/** Nothing promises that what was appended comes as it was appended; it does. */
function inOrder(names: string[]): string[] {
  return names.every((name, at) => at === 0 || (names[at - 1] as string) < name) ? names : names.sort()
}

/**
 * Every range is a scan of its own, in order, and their scans are merged: no more names are taken from each than needed.
 * Exact names that come before all others are one scan, with nothing to merge, which would take longer than the scan.
 */
function statementOf(lookup: Lookup, filter: NameFilter | undefined, [from, to]: [number, number]): Statement {
  const key = `${from} ${to}`
  const known = lookup.statements.get(key)
  if (known) return known
  const values: string[] = []
  const place = (value: string) => `$${values.push(value) + 2}::text`
  const scan = (names: string) => `(
      select r.name from repositories r
      where r.name > $1 and ${names} and exists (select from manifests m where m.repository_id = r.id)
      order by r.name limit $2)`
  const exactly = (names: readonly string[]) =>
    names.length === 1
      ? `r.name = ${place(names[0] as string)}`
      : `r.name = any(array[${names.map(place).join()}]::text[])`
  const within = ({ beginning, end, exact }: Range) =>
    exact
      ? exactly(exact)
      : `r.name >= ${place(beginning)} and r.name < ${place(end)} and ${filter ? listable(filter, { name: 'r.name', place, beginning }) : true}`
  const some = lookup.ranges.slice(from, to)
  const many = some.findIndex(({ exact }) => !exact)
  const before = some.slice(0, many < 0 ? some.length : many).flatMap(({ exact }) => exact ?? [])
  const merged = many < 0 ? [] : some.slice(many).map((range) => scan(within(range)))
  const scans = [
    ...(before.length > 0 ? [scan(exactly(before))] : []),
    ...(merged.length > 1 ? [`(${merged.join(' union all ')} order by name limit $2)`] : merged),
  ]
  // As one text: of fragments the driver makes a promise each, and ten of them take as long as the statement.
  const appended =
    scans.length === 1 ? scans[0] : `(${scans.map((one, at) => `select * from ${one} s${at}`).join(' union all ')})`
  const text = `select coalesce(json_agg(page.name), '[]') as names from ${appended} page`
  const statement = { text, values }
  lookup.statements.set(key, statement)
  return statement
}
