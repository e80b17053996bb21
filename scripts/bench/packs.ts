import { join } from 'node:path'
import { connect } from '../../src/db/client.ts'
import { startEmbedded } from '../../src/db/embedded.ts'
import { addPacks, addVersions, commonWord, familySize, packCount, packName, searches } from './catalogue.ts'
import { atEnd, scratchFolder } from './cleanup.ts'
import { startPacks } from './contestants.ts'
import { drive } from './driver.ts'
import { median } from './figures.ts'
import type { Options } from './main.ts'
import { acceptFor } from './oci.ts'
import { cpuSecondsOf, type Server } from './processes.ts'
import type { Milliseconds, Question } from './push.ts'
import { makeRulePack, publishByForm, type RulePack } from './rule-pack.ts'
import { printVerdicts, type Verdict } from './verdicts.ts'
import { expectStatus, Wire } from './wire.ts'
import { wrk } from './wrk.ts'

// The facade's speed. What is compared takes turns, round by round, so that a busy moment of the machine hits both; and
// beside the rate stands the processor time that registry and database took for each request, which such moments hardly
// touch.

/** One way of one row in one round. `cpu`: milliseconds of registry and PostgreSQL for each request. */
type Round = { readonly rate: number; readonly cpu: number; readonly milliseconds?: Milliseconds }
type Way = (seconds: number) => Promise<Round>
type Place = { readonly server: Server; readonly folder: string; readonly options: Options }

const leastOfOci = 0.8
const mostMilliseconds = { search: 50, resolve: 100 }
const leastPages = 2000

/** Prints one table; gives whether every target was met, or --check was not asked for. */
export async function packSpeed(options: Options): Promise<boolean> {
  const folder = await scratchFolder(options.dir)
  const database = await startEmbedded({ dataDir: join(folder, 'database') })
  atEnd(() => database.stop())
  const start = (label: string) =>
    startPacks({ folder, label, processes: options.processes, env: { DATABASE_URL: database.url } })
  const place = { server: await start('packs'), folder, options }
  const sql = connect(database.url, { max: 1, connection: { synchronous_commit: 'off' } })
  const lines: Verdict[] = []
  const add = async (name: PackRowName, row: () => Promise<Verdict[]>) => {
    if (options.only.includes(name)) lines.push(...(await row()))
  }
  await addPacks(sql)
  await addVersions(sql, { first: 0, end: 10 })
  await add('facade-reads', () => reads(place))
  await add('facade-list', () => list(place))
  await add('facade-search', () => search(place))
  await add('facade-publish', () => publishing(place))
  await place.server.stop()
  if (options.only.includes('facade-resolve')) {
    await addVersions(sql, { first: 10, end: 100 })
    // One that has resolved nothing yet: what its first call takes is told too.
    const fresh = { ...place, server: await start('resolve') }
    lines.push(...(await resolving(fresh)))
    await fresh.server.stop()
  }
  await sql.end()
  report(options, lines)
  return !options.check || lines.every((line) => line.met)
}

export const packRowNames = [
  'facade-reads',
  'facade-list',
  'facade-search',
  'facade-publish',
  'facade-resolve',
] as const
type PackRowName = (typeof packRowNames)[number]

/** All ways are warmed up, then they take turns. */
async function inTurn<Name extends string>(
  ways: Record<Name, Way>,
  { rounds, seconds }: Options,
): Promise<Record<Name, Round[]>> {
  const names = Object.keys(ways) as Name[]
  const results = Object.fromEntries(names.map((name) => [name, []])) as unknown as Record<Name, Round[]>
  for (const name of names) await ways[name](2)
  for (let round = 0; round < rounds; round++) for (const name of names) results[name].push(await ways[name](seconds))
  return results
}

async function timed(
  { server, folder }: Place,
  run: () => Promise<Omit<Round, 'cpu'>>,
  seconds: number,
): Promise<Round> {
  const before = await cpuSecondsOf({ ...server, folder })
  const { rate, ...rest } = await run()
  return { rate, cpu: (((await cpuSecondsOf({ ...server, folder })) - before) * 1000) / (rate * seconds), ...rest }
}

function getting(place: Place, path: string): Way {
  const url = place.server.origin + path
  return (seconds) =>
    timed(place, async () => ({ rate: (await wrk(url, { seconds, accept: acceptFor(path) })).perSecond }), seconds)
}

function asking(place: Place, clients: number, questions: readonly Question[]): Way {
  const { origin } = place.server
  return (seconds) => timed(place, () => drive({ kind: 'questions', origin, seconds, clients, questions }), seconds)
}

function publishingBy(place: Place, form: 'facade' | 'oci'): Way {
  const { origin } = place.server
  return (seconds) =>
    timed(place, () => drive({ kind: 'rule-packs', origin, form, seconds, clients: 8, packs: 50 }), seconds)
}

const rateOf = (rounds: readonly Round[]) => median(rounds.map((round) => round.rate))
const cpuOf = (rounds: readonly Round[]) => median(rounds.map((round) => round.cpu))
const count = (value: number) => Math.round(value).toLocaleString('en-US')
const cost = (rounds: readonly Round[]) => `${cpuOf(rounds).toFixed(3)} ms CPU`

function beside(title: string, unit: string, facade: Round[], oci: Round[]): Verdict {
  const ratio = rateOf(facade) / rateOf(oci)
  return {
    title,
    figure: `${count(rateOf(facade))} ${unit} (${cost(facade)}), /v2 ${count(rateOf(oci))} (${cost(oci)}): ${ratio.toFixed(2)}`,
    target: `≥ ${leastOfOci} × /v2`,
    met: ratio >= leastOfOci,
  }
}

async function reads(place: Place): Promise<Verdict[]> {
  const { origin } = place.server
  const pack = makeRulePack('bench-read', 0)
  const wire = new Wire(origin)
  await publishByForm(wire, pack)
  const oci = `/v2/${pack.repository}`
  const paths = { content: `${oci}/blobs/${pack.blobs[1].digest}`, manifest: `${oci}/manifests/${pack.tag}` }
  await verifyReads(wire, pack, paths.content)
  wire.close()
  const rounds = await inTurn(
    {
      content: getting(place, pack.path),
      blob: getting(place, paths.content),
      description: getting(place, `${pack.path}/manifest`),
      manifest: getting(place, paths.manifest),
    },
    place.options,
  )
  return [
    beside('GET /packs/{id}/{version}', 'req/s', rounds.content, rounds.blob),
    beside('GET /packs/{id}/{version}/manifest', 'req/s', rounds.description, rounds.manifest),
  ]
}

async function verifyReads(wire: Wire, { path, blobs }: RulePack, blob: string): Promise<void> {
  for (const place of [path, blob]) {
    const { body } = expectStatus(await wire.request('GET', place), 200, place)
    if (!body.equals(blobs[1].bytes)) throw new Error(`GET ${place}: other bytes than were published`)
  }
  const { body } = expectStatus(await wire.request('GET', `${path}/manifest`), 200, path)
  if (JSON.parse(body.toString()).pack.digest !== blobs[1].digest) throw new Error(`GET ${path}/manifest: not the pack`)
}

async function list(place: Place): Promise<Verdict[]> {
  const answer = await fetch(`${place.server.origin}/packs`)
  const { packs } = (await answer.json()) as { packs: { versions: number }[] }
  if (packs.length !== 50) throw new Error(`GET /packs gave ${packs.length} packs`)
  const { pages } = await inTurn({ pages: getting(place, '/packs') }, place.options)
  return [
    {
      title: 'GET /packs, first page',
      figure: `${count(rateOf(pages))} req/s (${cost(pages)})`,
      target: `≥ ${count(leastPages)} req/s`,
      met: rateOf(pages) >= leastPages,
    },
  ]
}

async function search(place: Place): Promise<Verdict[]> {
  const questions = searches(1000).map((q) => ({ path: `/packs?q=${encodeURIComponent(q)}`, status: 200 }))
  const widest = [{ path: `/packs?q=${commonWord}`, status: 200 }]
  const rounds = await inTurn({ mixed: asking(place, 16, questions), widest: asking(place, 1, widest) }, place.options)
  const p99 = median(rounds.mixed.map(({ milliseconds }) => milliseconds?.p99 ?? Number.NaN))
  const [half, wide] = [rounds.mixed, rounds.widest].map((all) =>
    median(all.map(({ milliseconds }) => milliseconds?.median ?? Number.NaN)),
  )
  return [
    {
      title: 'GET /packs?q=, 16 clients',
      figure: `p99 ${p99.toFixed(1)} ms, median ${half?.toFixed(1)} ms, ${count(rateOf(rounds.mixed))} req/s (${cost(rounds.mixed)}); all ${count(packCount)} found, one client: ${wide?.toFixed(1)} ms`,
      target: `p99 < ${mostMilliseconds.search} ms`,
      met: p99 < mostMilliseconds.search,
    },
  ]
}

async function publishing(place: Place): Promise<Verdict[]> {
  const { facade, oci } = await inTurn(
    { facade: publishingBy(place, 'facade'), oci: publishingBy(place, 'oci') },
    place.options,
  )
  return [beside('POST /packs, 8 at once', 'packs/s', facade, oci)]
}

async function resolving(place: Place): Promise<Verdict[]> {
  const root = { packId: packName(0), version: '*' }
  const closure = { path: '/resolve', status: 200, body: JSON.stringify({ roots: [root] }) }
  // The last of the family is as deep as it goes, and the first asks for its own major version all the way down.
  const roots = [
    { ...root, version: '>=2.0.0' },
    { packId: packName(familySize - 1), version: '^1.0.0' },
  ]
  const conflict = { path: '/resolve', status: 409, body: JSON.stringify({ roots }) }
  const first = await firstCall(place, closure)
  const rounds = await inTurn(
    { closure: asking(place, 1, [closure]), conflict: asking(place, 1, [conflict]) },
    place.options,
  )
  const line = (title: string, all: readonly Round[], note: string): Verdict => {
    const [half, p99] = (['median', 'p99'] as const).map((key) =>
      median(all.map((r) => r.milliseconds?.[key] ?? Number.NaN)),
    )
    return {
      title,
      figure: `${half?.toFixed(1)} ms, p99 ${p99?.toFixed(1)} ms${note} (${cost(all)})`,
      target: `< ${mostMilliseconds.resolve} ms`,
      met: (half ?? Number.NaN) < mostMilliseconds.resolve,
    }
  }
  return [
    line(
      `POST /resolve, ${familySize} packs of 100 versions`,
      rounds.closure,
      `, the first of a process ${first.toFixed(0)} ms`,
    ),
    line('POST /resolve, a conflict in them explained', rounds.conflict, ''),
  ]
}

async function firstCall({ server }: Place, { path, body = '' }: Question): Promise<number> {
  const wire = new Wire(server.origin)
  const started = performance.now()
  const answer = await wire.request('POST', path, ['content-type: application/json'], Buffer.from(body))
  const took = performance.now() - started
  const { packs } = JSON.parse(expectStatus(answer, 200, path).body.toString()) as { packs: unknown[] }
  if (packs.length !== familySize) throw new Error(`POST ${path} resolved ${packs.length} packs, not ${familySize}`)
  wire.close()
  return took
}

function report({ rounds, seconds, processes }: Options, lines: readonly Verdict[]): void {
  console.log(
    `\n${count(packCount)} packs of 10 versions (for /resolve 100), PROCESSES=${processes}, node ${process.version}`,
  )
  console.log(`median of ${rounds} rounds of ${seconds} s in turn; CPU: of registry and PostgreSQL, for each request\n`)
  printVerdicts(lines)
}
