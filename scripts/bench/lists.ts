import { join } from 'node:path'
import { connect, type Sql } from '../../src/db/client.ts'
import { startEmbedded } from '../../src/db/embedded.ts'
import { atEnd, scratchFolder } from './cleanup.ts'
import { startPacks } from './contestants.ts'
import { median } from './figures.ts'
import type { Options } from './main.ts'
import { content, manifestOf } from './oci.ts'
import { wrk } from './wrk.ts'

const pageSize = 100
/** Long enough to have a page with others on both sides of it. */
const shortCount = 300
const tagCount = 100_000
const repositoryCount = 10_000
/** How much slower than a page of a short list one of a long list may be, measurement noise included. */
const slowest = 0.9

type Page = { readonly url: string; readonly first: string }
type Pair = { readonly place: string; readonly short: Page; readonly long: Page }

/**
 * The first, middle and last page of long lists, each beside the same page of a short one in a registry of its own;
 * they take turns. Gives whether all of them are about as fast.
 */
export async function listSpeed(options: Options): Promise<boolean> {
  const folder = await scratchFolder(options.dir)
  const short = await filledRegistry(folder, 'short', { repositories: shortCount, tags: shortCount })
  const long = await filledRegistry(folder, 'long', { repositories: repositoryCount, tags: tagCount })
  const pairs = (count: number, page: (origin: string, at: number) => Page) => [
    { place: 'first', short: page(short, 0), long: page(long, 0) },
    { place: 'middle', short: page(short, pageSize), long: page(long, count / 2) },
    { place: 'last', short: page(short, shortCount - pageSize), long: page(long, count - pageSize) },
  ]
  const tags = await compare('tags/list', tagCount, pairs(tagCount, tagsPage), options)
  const catalog = await compare('_catalog', repositoryCount, pairs(repositoryCount, catalogPage), options)
  return tags && catalog
}

/** A registry whose first repository has `tags` tags; gives its address. */
async function filledRegistry(folder: string, label: string, count: { repositories: number; tags: number }) {
  const database = await startEmbedded({ dataDir: join(folder, `${label}-database`) })
  atEnd(() => database.stop())
  const { origin } = await startPacks({ folder, label, processes: 1, env: { DATABASE_URL: database.url } })
  const sql = connect(database.url, { max: 1 })
  await addRepositories(sql, count.repositories)
  await addTags(sql, repositoryName(0), count.tags)
  await sql`vacuum analyze`
  await sql.end()
  return origin
}

const repositoryName = (index: number) => `lists/r${String(index).padStart(6, '0')}`
const tagName = (index: number) => `v${String(index).padStart(6, '0')}`
const after = (last: string | undefined) =>
  `?n=${pageSize}${last === undefined ? '' : `&last=${encodeURIComponent(last)}`}`

function catalogPage(origin: string, at: number): Page {
  const path = `/v2/_catalog${after(at === 0 ? undefined : repositoryName(at - 1))}`
  return { url: origin + path, first: repositoryName(at) }
}

function tagsPage(origin: string, at: number): Page {
  const path = `/v2/${repositoryName(0)}/tags/list${after(at === 0 ? undefined : tagName(at - 1))}`
  return { url: origin + path, first: tagName(at) }
}

const config = content(Buffer.from('{}'))
const manifest = manifestOf(config, [])
const { mediaType } = JSON.parse(manifest.bytes.toString()) as { mediaType: string }

/** Repositories with one manifest each, straight into the tables: by pushes it would take minutes. */
async function addRepositories(sql: Sql, count: number): Promise<void> {
  await sql`
    with added as (
      insert into repositories (name)
      select 'lists/r' || lpad(n::text, 6, '0') from generate_series(0, ${count - 1}::int) n
      returning id
    )
    insert into manifests (repository_id, digest, media_type, size, payload)
    select id, ${manifest.digest}, ${mediaType}, ${manifest.bytes.length}::int, ${manifest.bytes} from added`
}

async function addTags(sql: Sql, repository: string, count: number): Promise<void> {
  await sql`
    insert into tags (repository_id, name, manifest_digest)
    select r.id, 'v' || lpad(n::text, 6, '0'), ${manifest.digest}
    from repositories r, generate_series(0, ${count - 1}::int) n where r.name = ${repository}`
}

/** Prints requests per second of every page and the ratio of long to short, after a look at what each answers. */
async function compare(
  title: string,
  count: number,
  pairs: readonly Pair[],
  { rounds, seconds }: Options,
): Promise<boolean> {
  console.log(`\n${title}, pages of ${pageSize}: of ${shortCount}, of ${count.toLocaleString('en-US')}`)
  let met = true
  for (const { place, short, long } of pairs) {
    const figures = { short: [] as number[], long: [] as number[] }
    for (let round = 0; round <= rounds; round++) {
      for (const [which, page] of Object.entries({ short, long }) as ['short' | 'long', Page][]) {
        await verify(page)
        const { perSecond } = await wrk(page.url, { seconds: round === 0 ? 2 : seconds })
        if (round > 0) figures[which].push(perSecond)
      }
    }
    const [base, speed] = [median(figures.short), median(figures.long)]
    const [left, right] = [base, speed].map((value) => Math.round(value).toLocaleString('en-US').padStart(7))
    console.log(`  ${place.padEnd(8)} ${left} ${right} req/s  ${(speed / base).toFixed(2)}`)
    met &&= speed >= base * slowest
  }
  console.log(`  target: at least ${slowest} × the short list's: ${met ? 'met' : 'MISSED'}`)
  return met
}

async function verify({ url, first }: Page): Promise<void> {
  const response = await fetch(url)
  const body = (await response.json()) as { tags?: string[]; repositories?: string[] }
  const names = body.tags ?? body.repositories ?? []
  if (names.length !== pageSize || names[0] !== first)
    throw new Error(`${url} gave ${names.length} names from ${names[0]}, not ${pageSize} from ${first}`)
}
