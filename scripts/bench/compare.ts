import { execFile } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import { cpus, loadavg } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { freeBytes, scratchFolder } from './cleanup.ts'
import { type ContestantName, startContestant, startPacks } from './contestants.ts'
import { breakIn, diskCeiling } from './disk.ts'
import { failuresOf, figure, type Line, met, type Outcome, table } from './figures.ts'
import type { Options } from './main.ts'
import { type Memory, memoryOf, type Server } from './processes.ts'
import { type Load, memoryRow, type Row, rows } from './rows.ts'
import { makeSamples, pushSamples, type Samples, verifySamples } from './samples.ts'

/**
 * A registry runs for weeks. Of a process of Node the rate of small answers still rises in its first fifteen seconds under
 * load, by half, while V8 compiles what is hot.
 */
const warmUpSeconds = 15

/** What one idle process is to stay below. */
const idleMegabytes = 150

type Running = Map<ContestantName, Server>
type Arena = {
  readonly folder: string
  readonly samples: Samples
  readonly running: Running
  readonly absent: string[]
}

/** Starts all servers, drives them in turn, and prints one table. Gives whether nothing failed or missed its target. */
export async function compare(options: Options): Promise<boolean> {
  const busy = loadavg()[0] ?? 0
  const arena = await openArena(options)
  const notes = [...arena.absent]
  if (busy > 0.3)
    notes.push(`the machine was not idle at the start (load ${busy.toFixed(1)}): take the figures with care`)
  const idle = await memories(arena.running, 3)
  const lines: Line[] = []
  const load = await loadFor(options, arena, notes)
  for (const [name, row] of Object.entries(rows)) {
    if (!options.only.includes(name)) continue
    const line = await runRow(row, arena.running, load, options.rounds)
    lines.push(line)
    if (row.disk) notes.push(await diskNote(line, arena.folder))
  }
  if (options.only.includes(memoryRow)) lines.push(...(await memoryLines(arena, idle)))
  for (const server of arena.running.values()) await server.stop()
  await report(options, lines, notes)
  return failuresOf(lines).length === 0 && (!options.check || lines.every((line) => met(line) !== false))
}

async function openArena(options: Options): Promise<Arena> {
  const folder = await scratchFolder(options.dir)
  const samples = makeSamples()
  const running: Running = new Map()
  const absent: string[] = []
  for (const name of options.peers) {
    try {
      const server = await startContestant(name, { folder, processes: options.processes, samples })
      running.set(name, server)
      if (name !== 'nginx') await pushSamples(server.origin, samples)
      await verifySamples(server.origin, samples, { registry: name !== 'nginx' })
    } catch (error) {
      await running.get(name)?.stop()
      running.delete(name)
      absent.push(`${name} not to be had: ${describe(error)}`)
    }
  }
  return { folder, samples, running, absent }
}

function describe(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  return error.cause === undefined ? error.message : `${error.message} (${describe(error.cause)})`
}

/** How much to push, within 60 % of the free disk: nothing that was pushed is removed before the end. */
async function loadFor(options: Options, { folder, samples, running }: Arena, notes: string[]): Promise<Load> {
  const pushers = [...running].filter(([name]) => name !== 'nginx').map(([, server]) => server.folder)
  const pushed = ['put', 'patch'].filter((row) => options.only.includes(row)).length
  const perCount = pushed * (options.rounds + 1) * samples.large.bytes.length
  const fits = Math.floor(((await freeBytes(folder)) * 0.6) / Math.max(1, perCount * pushers.length))
  const largeCount = Math.max(4, Math.min(options.large, fits))
  if (largeCount < options.large) notes.push(`only ${largeCount} large blobs per round, to fit the disk`)
  for (const place of pushers) await breakIn(place, perCount * largeCount)
  return { samples, seconds: options.seconds, largeCount }
}

/** One row: every server is warmed up, then they take turns, round by round, so that a busy moment hits them all. */
async function runRow(row: Row, running: Running, load: Load, rounds: number): Promise<Line> {
  const outcomes: Partial<Record<ContestantName, Outcome>> = {}
  const participants = [...running].filter(([name]) => !(row.writes && name === 'nginx'))
  const warmUp: Load = { ...load, seconds: warmUpSeconds, largeCount: 8 }
  for (let round = 0; round <= rounds; round++) {
    for (const [name, server] of participants) {
      const before = outcomes[name]
      if (before && 'failed' in before) continue
      await settle()
      try {
        const value = await row.measure(server.origin, round === 0 ? warmUp : load)
        outcomes[name] = { rounds: round === 0 ? [] : [...(before?.rounds ?? []), value] }
      } catch (error) {
        outcomes[name] = { failed: server.ended() ?? describe(error) }
      }
    }
  }
  console.error(
    `${row.title}: ${JSON.stringify(outcomes, (_, value) => (typeof value === 'number' ? Math.round(value) : value))}`,
  )
  const { title, unit, target } = row
  return target ? { title, unit, target, outcomes } : { title, unit, outcomes }
}

/** What one server left in the page cache is written out before the next one is timed. */
async function settle(): Promise<void> {
  await promisify(execFile)('sync')
}

/** What the disk gave right after a row of large pushes: it differs threefold from one minute to the next. */
async function diskNote(line: Line, folder: string): Promise<string> {
  await settle()
  const ceiling = await diskCeiling(folder)
  const ours = figure(line, 'packs')
  const share = ours === undefined ? '' : `: ours is ${Math.round((100 * ours) / ceiling)} % of it`
  return `${line.title}: right after, the disk took ${Math.round(ceiling)} MB/s for 64 MiB files written and synced by 4 at once${share}`
}

async function memories(running: Running, settleSeconds: number): Promise<Map<ContestantName, Memory>> {
  await sleep(settleSeconds * 1000)
  return new Map(await Promise.all([...running].map(async ([name, server]) => [name, await memoryOf(server)] as const)))
}

async function memoryLines(arena: Arena, idle: Map<ContestantName, Memory>): Promise<Line[]> {
  const after = await memories(arena.running, 3)
  const line = (title: string, figures: Map<ContestantName, Memory>, part: 'own' | 'postgres'): Line => {
    const shown = [...figures].filter(([name]) => part === 'own' || name === 'packs')
    return {
      title,
      unit: 'MB',
      outcomes: Object.fromEntries(shown.map(([name, one]) => [name, { rounds: [one[part]] }])),
    }
  }
  const lines = [
    line('memory when idle (PSS)', idle, 'own'),
    line('  its PostgreSQL', idle, 'postgres'),
    line('memory after the load (PSS)', after, 'own'),
    line('  its PostgreSQL', after, 'postgres'),
  ]
  return arena.running.has('packs') ? [...lines, await oneProcessIdle(arena)] : lines
}

async function oneProcessIdle({ folder }: Arena): Promise<Line> {
  const server = await startPacks({ folder, label: 'packs-one-process', processes: 1 })
  const own = await settledMemory(server)
  await server.stop()
  const title = 'memory of one idle process (RSS)'
  return { title, unit: 'MB', target: { below: idleMegabytes }, outcomes: { packs: { rounds: [own] } } }
}

/** V8 gives back what starting took once the process has been idle for a while: when the figure stays, it is idle. */
async function settledMemory(server: Server): Promise<number> {
  let lowest = Number.POSITIVE_INFINITY
  for (let unchanged = 0; unchanged < 6; unchanged++) {
    await sleep(5000)
    const { own } = await memoryOf(server, 'Rss')
    if (own < lowest * 0.98) unchanged = 0
    lowest = Math.min(lowest, own)
  }
  return lowest
}

async function report(options: Options, lines: readonly Line[], notes: readonly string[]): Promise<void> {
  const model = cpus()[0]?.model ?? 'unknown processor'
  const { rounds, seconds, processes } = options
  console.log(`\n${cpus().length} × ${model}, node ${process.version}, PROCESSES=${processes}`)
  console.log(
    `median of ${rounds} rounds in turn, after ${warmUpSeconds} s to warm up; reads by wrk -t1 -c32 -d${seconds}s (64 MiB: -c4), pushes by a Node driver\n`,
  )
  console.log(table(lines, options.peers))
  for (const note of [...notes, ...failuresOf(lines)]) console.log(`\n${note}`)
  if (options.json)
    await writeFile(options.json, `${JSON.stringify({ machine: model, options, lines, notes }, null, 2)}\n`)
}
