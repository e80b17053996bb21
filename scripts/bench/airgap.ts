import { spawn } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { readFile, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { survey } from '../../src/bundles/survey.ts'
import type { ImportReport } from '../../src/client/client.ts'
import { atEnd, freeBytes, scratchFolder } from './cleanup.ts'
import { startPacks } from './contestants.ts'
import { breakIn } from './disk.ts'
import { median } from './figures.ts'
import type { Options } from './main.ts'
import { putBlob, putManifest, streamBlob } from './oci.ts'
import { cpuSecondsOf, peakOf, resetPeaks, type Server } from './processes.ts'
import { describeRulePack, makeRulePack, publishByForm } from './rule-pack.ts'
import { printVerdicts, type Verdict } from './verdicts.ts'
import { Wire } from './wire.ts'

// Bundles from one site to another, as an operator carries them: two servers as they are by default (one process, the
// embedded PostgreSQL, everything durable), and the command `packs` between them and the file.
//
// Beside it: tar of the very files that the store of the first site holds, into a file on the same disk, with sha256sum
// over it, once in a pipe and once afterwards; the file is synced, as those of the registry are. What is read is in the
// page cache, as far as it fits. They take turns, round by round. Processor time is of the command, the server and its
// PostgreSQL together.

const leastOfTar = 0.6
const most = { megabytes: 250, exportSeconds: 5, importSeconds: 20 }

const mebibyte = 1 << 20
const largestMebibytes = 512
const smallCount = 2000
const rootId = 'bench-root'
const count = (value: number) => Math.round(value).toLocaleString('en-US')

export const airGapRowNames = ['airgap-large', 'airgap-small'] as const

/** Prints one table; gives whether every target was met, or --check was not asked for. */
export async function airGap(options: Options): Promise<boolean> {
  const folder = await scratchFolder(options.dir)
  const lines: Verdict[] = []
  if (options.only.includes('airgap-large')) lines.push(...(await large(folder, options)))
  if (options.only.includes('airgap-small')) lines.push(...(await small(folder, options)))
  console.log(`\nPROCESSES=1, node ${process.version}; times are medians of ${options.rounds} rounds in turn\n`)
  printVerdicts(lines)
  return !options.check || lines.every(({ met }) => met)
}

const startSite = (folder: string, label: string) => startPacks({ folder, label, processes: 1 })

async function endSite(site: Server): Promise<void> {
  await site.stop()
  await rm(site.folder, { recursive: true, force: true, maxRetries: 5 })
}

/** A closure of some large packs: as fast as tar, and in little memory. */
async function large(folder: string, { size = 2048, rounds }: Options): Promise<Verdict[]> {
  // At once there are: the first site, the file, and either the second site or what tar wrote.
  if ((await freeBytes(folder)) < size * mebibyte * 3.2)
    throw new Error(`${folder} has no room for three times ${size} MiB`)
  const from = await startSite(folder, 'large-from')
  const packs = await publishLarge(from, size)
  await breakIn(folder, 2 * size * mebibyte)
  const taken: Record<Way, Times[]> = { tar: [], steps: [], http: [], send: [], take: [] }
  const peaks: Record<Peak, number[]> = { from: [], to: [], send: [], take: [] }
  for (let round = 0; round < rounds; round++) {
    taken.tar.push(await tarred(from, join(folder, 'large-tar'), 'tar -C "$1" -cf - blobs | tee "$2" | sha256sum'))
    taken.steps.push(await tarred(from, join(folder, 'large-tar'), 'tar -C "$1" -cf "$2" blobs; sha256sum "$2"'))
    await resetPeaks(from)
    taken.http.push(await alsoOf(from, () => fetched(from, join(folder, 'large-http'))))
    const file = join(folder, 'large.tar')
    const sent = await alsoOf(from, () => packsCommand(from, ['export', rootId, '-o', file]))
    peaks.from.push((await peakOf(from)).own)
    const to = await startSite(folder, `large-to-${round}`)
    await resetPeaks(to)
    const got = await alsoOf(to, () => packsCommand(to, ['import', file]))
    requireNew(got.result, packs)
    peaks.to.push((await peakOf(to)).own)
    taken.send.push(sent)
    taken.take.push(got)
    peaks.send.push(sent.megabytes)
    peaks.take.push(got.megabytes)
    await endSite(to)
    await rm(file)
  }
  await endSite(from)
  return [...speeds(taken, size), ...memories(peaks)]
}

type Way = 'tar' | 'steps' | 'http' | 'send' | 'take'
type Peak = 'from' | 'to' | 'send' | 'take'

/** What a server and its PostgreSQL took meanwhile is counted in. */
async function alsoOf<T extends Times>(server: Server, run: () => Promise<T>): Promise<T> {
  const before = await cpuSecondsOf(server)
  const times = await run()
  return { ...times, cpu: times.cpu + (await cpuSecondsOf(server)) - before }
}

/** Held against the faster of the two: which that is depends on how much else the machine has to do. */
function speeds(taken: Record<Way, readonly Times[]>, size: number): Verdict[] {
  const of = (way: Way, what: keyof Times) => median(taken[way].map((times) => times[what]))
  const base = of('tar', 'seconds') < of('steps', 'seconds') ? 'tar' : 'steps'
  const figure = (way: Way) => {
    const seconds = of(way, 'seconds')
    return `${seconds.toFixed(1)} s, ${count((size * mebibyte) / 1e6 / seconds)} MB/s, ${of(way, 'cpu').toFixed(1)} s of CPU`
  }
  console.log(`\n${size} MiB by tar | tee file | sha256sum: ${figure('tar')}`)
  console.log(`${size} MiB by tar, then sha256sum: ${figure('steps')}`)
  const line = (title: string, way: Way): Verdict => {
    const ratio = of(base, 'seconds') / of(way, 'seconds')
    const cpu = of(base, 'cpu') / of(way, 'cpu')
    return {
      title: `${title}, ${size} MiB`,
      figure: `${ratio.toFixed(2)}, by CPU ${cpu.toFixed(2)}: ${figure(way)}`,
      ...{ target: `≥ ${leastOfTar} × tar and sha256sum`, met: ratio >= leastOfTar },
    }
  }
  return [line('packs export', 'send'), line('POST /bundles to a file', 'http'), line('packs import', 'take')]
}

function memories(peaks: Record<Peak, readonly number[]>): Verdict[] {
  const line = (title: string, server: readonly number[], client: readonly number[]): Verdict => {
    const [one, other] = [Math.max(...server), Math.max(...client)]
    const figure = `server ${Math.round(one)} MB, command ${Math.round(other)} MB`
    return { title, figure, target: `< ${most.megabytes} MB each`, met: Math.max(one, other) < most.megabytes }
  }
  return [
    line('  resident while it is exported', peaks.from, peaks.send),
    line('  resident while it is imported', peaks.to, peaks.take),
  ]
}

/** How many versions there are then: packs of random content, and one that needs all of them. */
async function publishLarge({ origin }: Server, size: number): Promise<number> {
  const wire = new Wire(origin)
  const random = randomBytes(64 * mebibyte)
  const pieces = Math.ceil(size / largestMebibytes)
  const members: { packId: string; version: string }[] = []
  for (let at = 0; at < pieces; at++) {
    const packId = `bench-large-${at}`
    const length = Math.min(largestMebibytes, size - at * largestMebibytes)
    const hash = createHash('sha256')
    const slices = function* () {
      for (let piece = 0; piece < length; piece++) {
        // The first of them makes it another content than the others.
        const start = (piece * 7919 * 4096) % (63 * mebibyte)
        const bytes = piece === 0 ? randomBytes(mebibyte) : random.subarray(start, start + mebibyte)
        hash.update(bytes)
        yield bytes
      }
    }
    let digest = ''
    const end = () => {
      digest = `sha256:${hash.digest('hex')}`
      return digest
    }
    await streamBlob(wire, `packs/${packId}`, slices(), end)
    const { repository, version, config, manifest } = describeRulePack(packId, 0, { digest, size: length * mebibyte })
    await putBlob(wire, repository, config)
    await putManifest(wire, repository, version, manifest)
    members.push({ packId, version: '^1.0.0' })
  }
  await publishByForm(wire, makeRulePack(rootId, 0, members))
  wire.close()
  return pieces + 1
}

/** A closure of many small packs, and what a later bundle has of it. */
async function small(folder: string, { rounds }: Options): Promise<Verdict[]> {
  const from = await startSite(folder, 'small-from')
  await publishSmall(from)
  const file = join(folder, 'small.tar')
  const taken = { send: [] as number[], take: [] as number[] }
  let to: Server | undefined
  for (let round = 0; round < rounds; round++) {
    taken.send.push((await packsCommand(from, ['export', smallId(0), '-o', file])).seconds)
    if (to) await endSite(to)
    to = await startSite(folder, `small-to-${round}`)
    const { result, seconds } = await packsCommand(to, ['import', file])
    requireNew(result, smallCount)
    taken.take.push(seconds)
    if (round < rounds - 1) await rm(file)
  }
  const line = (title: string, seconds: readonly number[], limit: number): Verdict => ({
    title: `${title}, ${count(smallCount)} small packs`,
    figure: `${median(seconds).toFixed(1)} s`,
    ...{ target: `< ${limit} s`, met: median(seconds) < limit },
  })
  const lines = [
    line('packs export', taken.send, most.exportSeconds),
    line('packs import', taken.take, most.importSeconds),
    ...(to ? [await incremental(folder, from, to)] : []),
  ]
  await endSite(from)
  if (to) await endSite(to)
  return lines
}

const smallId = (index: number) => `bench-small-${String(index).padStart(4, '0')}`

/** In a binary tree: the closure of the first is the whole of it. */
async function publishSmall({ origin }: Server): Promise<void> {
  const clients = Array.from({ length: 8 }, (_, first) => ({ wire: new Wire(origin), first }))
  await Promise.all(
    clients.map(async ({ wire, first }) => {
      for (let at = first; at < smallCount; at += clients.length)
        await publishByForm(wire, makeRulePack(smallId(at), 0, needsOf(at)), '?allowMissing=true')
      wire.close()
    }),
  )
}

function needsOf(at: number) {
  const below = [2 * at + 1, 2 * at + 2].filter((index) => index < smallCount)
  return below.map((index) => ({ packId: smallId(index), version: '^1.0.0' }))
}

/** After one more version: what is in the file beside manifests and the documents about the file itself. */
async function incremental(folder: string, from: Server, to: Server): Promise<Verdict> {
  const pack = makeRulePack(smallId(7), 1, needsOf(7))
  const wire = new Wire(from.origin)
  await publishByForm(wire, pack)
  wire.close()
  const [inventory, file] = [join(folder, 'inventory.json'), join(folder, 'small-more.tar')]
  await packsCommand(to, ['inventory', '-o', inventory])
  const { seconds } = await packsCommand(from, ['export', '--all', '--since', inventory, '-o', file])
  const { blobs, manifests, contents } = await survey(file)
  const about = contents.entries.flatMap(({ kind, descriptor }) => {
    const manifest = kind === 'lock' || kind === 'missing' ? manifests.get(descriptor.digest) : undefined
    return manifest && 'needs' in manifest ? manifest.needs.map(({ digest }) => digest) : []
  })
  const others = new Set<string>([...manifests.keys(), ...about])
  const held = [...blobs.keys()].filter((digest) => !others.has(digest)).sort()
  const fresh = pack.blobs.map(({ digest }) => digest).sort()
  requireNew((await packsCommand(to, ['import', file])).result, 1)
  const { size } = await stat(file)
  return {
    title: 'incremental, one new version',
    figure: `${held.length} blobs, ${held.join() === fresh.join() ? 'those of the new version' : `and not just ${fresh.join()}`}; ${seconds.toFixed(1)} s, ${(size / 1e6).toFixed(1)} MB with all manifests`,
    ...{ target: 'its blobs, no others', met: held.join() === fresh.join() },
  }
}

function requireNew(report: unknown, versions: number): void {
  const { packs = [] } = report as Partial<ImportReport>
  const fresh = packs.filter(({ outcome }) => outcome === 'new').length
  if (fresh !== versions) throw new Error(`${fresh} new versions were imported, not ${versions}`)
}

type Times = { readonly seconds: number; readonly cpu: number }

/** What a shell takes for the files of a store ($1) into a file ($2), synced; the file is removed. */
async function tarred({ folder }: Server, file: string, script: string): Promise<Times> {
  const times = await shell(`${script} && sync -d "$2"`, [folder, file])
  await rm(file)
  return times
}

async function fetched({ origin }: Server, file: string): Promise<Times> {
  const body = JSON.stringify({ roots: [{ packId: rootId, version: '*' }] })
  const type = 'content-type: application/json'
  const script = 'curl -sS --fail -H "$1" -d "$2" -o "$3" "$4"; sync -d "$3"'
  const times = await shell(script, [type, body, file, `${origin}/bundles`])
  await rm(file)
  return times
}

/** A script of the shell, which counts the processor time of what it runs. */
async function shell(script: string, args: readonly string[]): Promise<Times> {
  const { seconds, said } = await command('sh', ['-ec', `${script}; times >&2`, 'sh', ...args])
  // POSIX: the last line is of the children, user and system: 0m1.20s 0m0.50s.
  const parts = [...(said.trim().split('\n').at(-1) ?? '').matchAll(/(\d+)m([\d.]+)s/g)]
  return { seconds, cpu: parts.reduce((sum, [, minutes, rest]) => sum + Number(minutes) * 60 + Number(rest), 0) }
}

async function packsCommand({ origin }: Server, args: readonly string[]) {
  const start = ['--import', 'tsx', 'src/main.ts']
  const { output, ...figures } = await command(process.execPath, [...start, ...args, '--registry', origin, '--json'])
  return { ...figures, result: JSON.parse(output) as unknown }
}

/** `cpu`: seconds of processor time; `megabytes`: the peak of its resident memory; both of the program alone. */
type Finished = {
  readonly seconds: number
  readonly cpu: number
  readonly megabytes: number
  readonly output: string
  readonly said: string
}

/** Runs a program to its end. Throws with what it said where it fails. */
async function command(program: string, args: readonly string[]): Promise<Finished> {
  const started = performance.now()
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] })
  atEnd(async () => void child.kill('SIGKILL'))
  let [output, said] = ['', '']
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    output += text
  })
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    said = (said + text).slice(-2000)
  })
  let end: number | undefined
  const ended = new Promise<number | null>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (code) => {
      end = performance.now()
      resolve(code)
    })
  })
  let [megabytes, cpu] = [0, 0]
  while (end === undefined) {
    megabytes = Math.max(megabytes, await residentPeak(child.pid))
    cpu = Math.max(cpu, await cpuSeconds(child.pid))
    await Promise.race([ended, sleep(50)])
  }
  const code = await ended
  if (code !== 0) throw new Error(`${program} ${args.join(' ')} ended with ${code}: ${said}${output.slice(0, 2000)}`)
  return { seconds: (end - started) / 1000, cpu, megabytes, output, said }
}

/** What is seen last: the moments before the end are missed. Hundredths are what Linux counts in: proc(5). */
async function cpuSeconds(pid: number | undefined): Promise<number> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '')
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return (Number(fields[11] ?? 0) + Number(fields[12] ?? 0)) / 100
}

/** The kernel keeps the peak, so only the last moments before the end are missed. */
async function residentPeak(pid: number | undefined): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => '')
  return (Number(/^VmHWM:\s+(\d+) kB/m.exec(status)?.[1] ?? 0) * 1024) / 1e6
}
