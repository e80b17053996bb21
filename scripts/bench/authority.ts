import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import bcrypt from 'bcryptjs'
import { connect, type Sql } from '../../src/db/client.ts'
import { startEmbedded } from '../../src/db/embedded.ts'
import { atEnd, scratchFolder } from './cleanup.ts'
import { startPacks } from './contestants.ts'
import { median } from './figures.ts'
import type { Options } from './main.ts'
import { content, manifestOf } from './oci.ts'
import { cpuSecondsOf, type Server } from './processes.ts'
import { printVerdicts, type Verdict } from './verdicts.ts'
import { wrk } from './wrk.ts'

// What it costs to know who asks, and to show them no more than they may see. What is compared takes turns, round by
// round; beside the rate stands the processor time of registry and PostgreSQL for each request.

const repositoryCount = 10_000
const pageSize = 100
const leastOfAnonymous = 0.7
const leastTokens = 1500
/** Of an unfiltered page, measurement noise included. */
const leastOfUnfiltered = 0.9

/** A request by somebody: what they show, undefined for nothing. */
type Question = { readonly path: string; readonly authorization: string | undefined }
type Round = { readonly rate: number; readonly cpu: number }

const basic = (name: string) => `Basic ${Buffer.from(`${name}:${name}`).toString('base64')}`
const repository = 't0/r00000'
const tag = '1'

/** Who may read what: all of it by one rule; one team's repositories; a few of every team's, which lie apart. */
const rules = [
  { repositories: ['**'], actions: ['pull', 'push', 'delete'], admin: true, claims: { sub: 'everything' } },
  { repositories: ['t5/*', 't7/r*'], actions: ['pull'], claims: { sub: 'team' } },
  { repositories: ['*/r*00'], actions: ['pull'], claims: { sub: 'scattered' } },
]

/** Prints one table; gives whether every target was met, or --check was not asked for. */
export async function authoritySpeed(options: Options): Promise<boolean> {
  const { server, folder } = await filledRegistry(options)
  const measure = (questions: Record<string, Question>) => inTurn(server, folder, questions, options)
  const lines = [
    ...(await manifests(server, measure)),
    ...(await tokens(server, measure)),
    ...(await catalog(server, measure)),
  ]
  await server.stop()
  printVerdicts(lines)
  return !options.check || lines.every(({ met }) => met)
}

async function filledRegistry({ dir, processes }: Options): Promise<{ server: Server; folder: string }> {
  const folder = await scratchFolder(dir)
  const database = await startEmbedded({ dataDir: join(folder, 'database') })
  atEnd(() => database.stop())
  const names = ['everything', 'team', 'scattered']
  await writeFile(join(folder, 'users'), names.map((name) => `${name}:${bcrypt.hashSync(name, 4)}`).join('\n'))
  await writeFile(join(folder, 'policy.json'), JSON.stringify({ rules }))
  const env = {
    ...{ DATABASE_URL: database.url, AUTH: 'htpasswd', HTPASSWD_FILE: join(folder, 'users') },
    ...{ POLICY_FILE: join(folder, 'policy.json'), ANONYMOUS_PULL: repository },
  }
  const server = await startPacks({ folder, label: 'packs', processes, env })
  const sql = connect(database.url, { max: 1 })
  await addRepositories(sql)
  await sql.end()
  return { server, folder }
}

/** Repositories of ten teams with one manifest each, straight into the tables. */
async function addRepositories(sql: Sql): Promise<void> {
  const { digest, bytes } = manifestOf(content(Buffer.from('{}')), [])
  const { mediaType } = JSON.parse(bytes.toString()) as { mediaType: string }
  await sql`
    with added as (
      insert into repositories (name)
      select 't' || n % 10 || '/r' || lpad(n::text, 5, '0') from generate_series(0, ${repositoryCount - 1}::int) n
      returning id
    )
    insert into manifests (repository_id, digest, media_type, size, payload)
    select id, ${digest}, ${mediaType}, ${bytes.length}::int, ${bytes} from added`
  await sql`
    insert into tags (repository_id, name, manifest_digest)
    select id, ${tag}, ${digest} from repositories where name = ${repository}`
  await sql`vacuum analyze`
}

/** All are warmed up, then they take turns. */
async function inTurn<Name extends string>(
  server: Server,
  folder: string,
  questions: Record<Name, Question>,
  { rounds, seconds }: Options,
): Promise<Record<Name, Round>> {
  const names = Object.keys(questions) as Name[]
  const found = Object.fromEntries(names.map((name) => [name, [] as Round[]])) as Record<Name, Round[]>
  for (let round = 0; round <= rounds; round++)
    for (const name of names) {
      const { path, authorization } = questions[name]
      const load = { seconds: round === 0 ? 1 : seconds, ...(authorization ? { authorization } : {}) }
      const before = await cpuSecondsOf({ ...server, folder })
      const { perSecond } = await wrk(server.origin + path, load)
      const used = (await cpuSecondsOf({ ...server, folder })) - before
      if (round > 0) found[name].push({ rate: perSecond, cpu: (used * 1000) / (perSecond * load.seconds) })
    }
  const middle = (all: Round[]) => ({
    rate: median(all.map(({ rate }) => rate)),
    cpu: median(all.map(({ cpu }) => cpu)),
  })
  return Object.fromEntries(names.map((name) => [name, middle(found[name])])) as Record<Name, Round>
}

type Measure = <Name extends string>(questions: Record<Name, Question>) => Promise<Record<Name, Round>>

const told = ({ rate, cpu }: Round) => `${Math.round(rate).toLocaleString('en-US')} (${cpu.toFixed(3)} ms CPU)`

function beside(title: string, unit: string, one: Round, base: Round, least: number, of: string): Verdict {
  const ratio = one.rate / base.rate
  const figure = `${told(one)} ${unit}, ${of} ${told(base)}: ${ratio.toFixed(2)}`
  return { title, figure, target: `≥ ${least} × ${of}`, met: ratio >= least }
}

/** The same manifest, asked for by everybody, and by those who show what they have. */
async function manifests({ origin }: Server, measure: Measure): Promise<Verdict[]> {
  const path = `/v2/${repository}/manifests/${tag}`
  const scope = `scope=repository:${repository}:pull`
  const { token } = await json<{ token: string }>(`${origin}/token?${scope}`, basic('everything'))
  const made = await json<{ token: string }>(`${origin}/tokens`, basic('everything'), { name: 'bench', pull: ['**'] })
  const { anonymous, ...shown } = await measure({
    anonymous: { path, authorization: undefined },
    'a token of /token': { path, authorization: `Bearer ${token}` },
    'a password': { path, authorization: basic('everything') },
    'an API token': { path, authorization: `Bearer ${made.token}` },
  })
  return Object.entries(shown).map(([what, round]) =>
    beside(`GET manifest, ${what}`, 'req/s', round, anonymous, leastOfAnonymous, 'anonymous'),
  )
}

async function tokens(_server: Server, measure: Measure): Promise<Verdict[]> {
  const path = `/token?service=packs-registry&scope=repository:${repository}:pull,push`
  const { user } = await measure({ user: { path, authorization: basic('everything') } })
  const figure = `${told(user)} req/s`
  return [{ title: 'GET /token', figure, target: `≥ ${leastTokens}/s`, met: user.rate >= leastTokens }]
}

/** A page of what somebody may read, from the start and from the middle, beside one of a list without a filter. */
async function catalog({ origin }: Server, measure: Measure): Promise<Verdict[]> {
  const page = (name: string, last: string): Question => ({
    path: `/v2/_catalog?n=${pageSize}${last && `&last=${last}`}`,
    authorization: basic(name),
  })
  const pages = {
    everything: page('everything', ''),
    'one team': page('team', ''),
    'one team, further on': page('team', 't5/r05005'),
    'a hundredth': page('scattered', ''),
  }
  for (const { path, authorization } of Object.values(pages)) {
    const { repositories } = await json<{ repositories: string[] }>(origin + path, authorization ?? '')
    if (repositories.length !== pageSize) throw new Error(`${path} gave ${repositories.length} names`)
  }
  const { everything, ...filtered } = await measure(pages)
  const { 'a hundredth': scattered, ...together } = filtered
  const lines = Object.entries(together).map(([who, round]) =>
    beside(`_catalog, ${who}`, 'pages/s', round, everything, leastOfUnfiltered, 'unfiltered'),
  )
  // What may be read begins with nothing in particular, so a page is looked for among all names.
  return [...lines, { title: '_catalog, a hundredth', figure: `${told(scattered)} pages/s`, target: '', met: true }]
}

async function json<T>(url: string, authorization: string, body?: object): Promise<T> {
  const sent = body ? { method: 'POST', body: JSON.stringify(body) } : {}
  const answer = await fetch(url, { headers: { authorization }, ...sent })
  if (!answer.ok) throw new Error(`${url} answers ${answer.status}: ${await answer.text()}`)
  return (await answer.json()) as T
}
