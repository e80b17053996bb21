/** The load generator for what wrk cannot do: pushes, and HEAD (wrk waits for a body). Runs as a process of its own. */
import { createHash, randomBytes } from 'node:crypto'
import { acceptFor, type Content, content, manifestOf, patchBlob, patchUpload, putBlob, putManifest } from './oci.ts'
import { makeRulePack, publishByForm } from './rule-pack.ts'
import { expectStatus, Wire } from './wire.ts'

export type Job =
  | {
      readonly kind: 'packs'
      readonly origin: string
      readonly seconds: number
      readonly clients: number
      /** New ones, over which the packs are spread. */
      readonly repositories: number
    }
  | {
      /** Packs by the rules of packs: one form each, or blobs and manifest by /v2. */
      readonly kind: 'rule-packs'
      readonly origin: string
      readonly form: 'facade' | 'oci'
      readonly seconds: number
      readonly clients: number
      readonly packs: number
    }
  | {
      /** Each client asks one question after the other, all of them in turn. */
      readonly kind: 'questions'
      readonly origin: string
      readonly seconds: number
      readonly clients: number
      readonly questions: readonly Question[]
    }
  | {
      readonly kind: 'blobs'
      readonly origin: string
      readonly form: 'put' | 'patch'
      readonly count: number
      readonly bytes: number
      readonly clients: number
    }
  | {
      readonly kind: 'uploads'
      readonly origin: string
      readonly clients: number
      /** Of each session, and how many of them each client has, one after the other. */
      readonly bytes: number
      readonly repeats: number
    }
  | {
      readonly kind: 'head'
      readonly origin: string
      readonly path: string
      readonly seconds: number
      readonly clients: number
    }

/** `body`: JSON, for a POST. `status`: of the right answer. */
export type Question = { readonly path: string; readonly body?: string; readonly status: number }

/**
 * `rate` per second: packs, megabytes (10^6 bytes) or requests. `busy`: the share of one core this process took.
 * `milliseconds`: from question to answer.
 */
export type Rate = { readonly rate: number; readonly busy: number; readonly milliseconds: Milliseconds }
export type Milliseconds = { readonly first: number; readonly median: number; readonly p99: number }
export type Result = Rate | { readonly error: string }

const packBytes = 16 * 1024
/** More than any registry here publishes in a second, so that what is prepared lasts. */
const packsPerSecond = 2500

type Pack = { repository: string; tag: string; blobs: readonly Content[]; manifest: Content }

let counter = 0
const run = randomBytes(4).toString('hex')

/** The `index`th pack of a job whose repositories have names that start with `names`. */
function makePack(names: string, repositories: number, index: number): Pack {
  const id = counter++
  const config = content(Buffer.from(JSON.stringify({ run, id })))
  const layer = content(randomBytes(packBytes))
  const repository = `${names}${index % repositories}`
  return { repository, tag: `1.${run}.${id}`, blobs: [config, layer], manifest: manifestOf(config, [layer]) }
}

async function publish(wire: Wire, { repository, tag, blobs, manifest }: Pack): Promise<void> {
  for (const blob of blobs) await putBlob(wire, repository, blob)
  await putManifest(wire, repository, tag, manifest)
}

/** Unique blobs: one block of random bytes, a counter in its end, so that all but the last block is hashed once. */
function makeBlobs(count: number, bytes: number, clients: number): (() => Content)[] {
  const buffers = Array.from({ length: clients }, () => randomBytes(bytes))
  const prefixes = buffers.map((buffer) => createHash('sha256').update(buffer.subarray(0, -8)))
  return Array.from({ length: count }, (_, at) => {
    const which = at % clients
    const tail = Buffer.alloc(8)
    tail.writeBigUInt64BE(BigInt(counter++))
    const digest = `sha256:${prefixes[which]?.copy().update(tail).digest('hex')}`
    return () => {
      const buffer = buffers[which] ?? tail
      tail.copy(buffer, buffer.length - 8)
      return { bytes: buffer, digest }
    }
  })
}

/** `clients` at once, each on its own connection, each with every so-many-th item, until the time is over. */
async function drive<T>(
  { origin, clients, seconds = Number.POSITIVE_INFINITY }: { origin: string; clients: number; seconds?: number },
  items: (at: number) => T | undefined,
  step: (wire: Wire, item: T) => Promise<unknown>,
): Promise<Rate> {
  const wires = Array.from({ length: clients }, () => new Wire(origin))
  const cpu = process.cpuUsage()
  const started = performance.now()
  const end = started + seconds * 1000
  const took: number[] = []
  const client = async (wire: Wire, first: number) => {
    for (let at = first; performance.now() < end; at += clients) {
      const item = items(at)
      if (item === undefined) break
      const asked = performance.now()
      await step(wire, item)
      took.push(performance.now() - asked)
    }
  }
  try {
    await Promise.all(wires.map(client))
  } finally {
    for (const wire of wires) wire.close()
  }
  const elapsed = (performance.now() - started) / 1000
  const { user, system } = process.cpuUsage(cpu)
  return { rate: took.length / elapsed, busy: (user + system) / 1e6 / elapsed, milliseconds: millisecondsOf(took) }
}

function millisecondsOf(took: readonly number[]): Milliseconds {
  const sorted = took.toSorted((a, b) => a - b)
  const at = (share: number) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN
  return { first: took[0] ?? Number.NaN, median: at(0.5), p99: at(0.99) }
}

async function ask(wire: Wire, { path, body, status }: Question): Promise<void> {
  const answer = body === undefined ? wire.request('GET', path) : post(wire, path, body)
  expectStatus(await answer, status, path)
}

function post(wire: Wire, path: string, body: string) {
  return wire.request('POST', path, ['content-type: application/json'], Buffer.from(body))
}

/** Every client sends a whole session at the same time; when all of them are in, all are cancelled. */
async function holdUploads(job: Job & { kind: 'uploads' }): Promise<Rate> {
  const block = randomBytes(1 << 20)
  const slices = Array<Buffer>(job.bytes / block.length).fill(block)
  const rate = { rate: 0, busy: 0, milliseconds: millisecondsOf([]) }
  for (let session = 0; session < job.repeats; session++) {
    const locations: string[] = []
    const sent = await drive(
      job,
      (at) => (at < job.clients ? at : undefined),
      async (wire) => locations.push(await patchUpload(wire, 'bench/held', { slices })),
    )
    await drive(
      job,
      (at) => locations[at],
      async (wire, location) => expectStatus(await wire.request('DELETE', location), 204, 'DELETE upload'),
    )
    rate.rate += (sent.rate * job.bytes) / 1e6 / job.repeats
    rate.busy += sent.busy / job.repeats
  }
  return rate
}

async function perform(job: Job): Promise<Rate> {
  if (job.kind === 'packs') {
    const names = `bench/packs-${counter++}-`
    const length = Math.ceil(job.seconds * packsPerSecond)
    const packs = Array.from({ length }, (_, index) => makePack(names, job.repositories, index))
    return drive(job, (at) => packs[at], publish)
  }
  if (job.kind === 'rule-packs') {
    const names = `bench-${run}-${counter++}-`
    const packs = Array.from({ length: Math.ceil(job.seconds * packsPerSecond) }, (_, index) =>
      makeRulePack(`${names}${index % job.packs}`, Math.floor(index / job.packs)),
    )
    return drive(job, (at) => packs[at], job.form === 'facade' ? publishByForm : publish)
  }
  if (job.kind === 'questions') {
    const { questions } = job
    return drive(job, (at) => questions[at % questions.length], ask)
  }
  if (job.kind === 'blobs') {
    const push = job.form === 'put' ? putBlob : patchBlob
    const blobs = makeBlobs(job.count, job.bytes, job.clients)
    const { rate, ...rest } = await drive(
      job,
      (at) => blobs[at],
      (wire, make) => push(wire, 'bench/large', make()),
    )
    return { rate: (rate * job.bytes) / 1e6, ...rest }
  }
  if (job.kind === 'uploads') return holdUploads(job)
  return drive(
    job,
    () => job.path,
    async (wire, path) => expectStatus(await wire.request('HEAD', path, [`accept: ${acceptFor(path)}`]), 200, 'HEAD'),
  )
}

process.on('message', (job: Job) => {
  perform(job).then(
    (result) => process.send?.(result satisfies Result),
    (error: unknown) => process.send?.({ error: String(error) } satisfies Result),
  )
})
process.on('disconnect', () => process.exit())
