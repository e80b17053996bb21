// Several replicas of the registry over one PostgreSQL 15 and one S3 (Ceph), or a folder, all on 127.0.0.1.
// usage: node --import tsx scripts/services/replicas.ts [--apis N] [--workers N] [--store s3|file] [NAME=VALUE …]
//   Starts them (3 and 2, S3, unless told otherwise), prints their addresses and process ids, so that any of them can be
//   killed by hand, and ends all of it, data included, at Ctrl-C. NAME=VALUE are settings of every replica: GC_GRACE=1s.
//   needs: what scripts/services/clients.sh installs
//   example: node --import tsx scripts/services/replicas.ts --apis 2 GC_GRACE=10s
import { mkdtempSync, realpathSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { parseArgs } from 'node:util'
import { type ObjectStore, startObjectStore } from '../../conformance/s3.ts'
import { type Server, startServer } from '../../conformance/server.ts'
import { type Postgres15, startPostgres15 } from './postgres15.ts'
import { freePort } from './processes.ts'

/** One process of the registry, which keeps its address when it is started again. */
export type Replica = {
  /** `api 1`, `worker 2` */
  readonly name: string
  readonly kind: 'api' | 'worker'
  readonly url: string
  /** As it runs now; undefined where it is killed. */
  server: Server | undefined
  /** Waits until it is ready. */
  start(): Promise<void>
  /** SIGKILL. */
  kill(): Promise<void>
}

export type Replicas = {
  readonly postgres: Postgres15
  /** Undefined where content is kept in `folder`. */
  readonly s3: ObjectStore | undefined
  readonly folder: string
  /** What every replica is set to. */
  readonly env: Record<string, string>
  readonly apis: readonly Replica[]
  readonly workers: readonly Replica[]
  /** Kills all of it, and removes the data. */
  stop(): Promise<void>
}

type Wanted = { apis?: number; workers?: number; store?: 's3' | 'file'; env?: Record<string, string> }

/** The prefix of all objects in the bucket. */
export const prefix = 'replicas'

/** Starts them; each API process runs no jobs, each worker serves nothing. */
export async function startReplicas({ apis = 3, workers = 2, store = 's3', env = {} }: Wanted = {}): Promise<Replicas> {
  const stops: (() => Promise<void> | void)[] = []
  const stop = async () => {
    for (const one of stops.splice(0).reverse()) await one()
  }
  try {
    const folder = realpathSync(mkdtempSync(join(tmpdir(), 'packs-registry-replicas-')))
    stops.push(() => rmSync(folder, { recursive: true, force: true, maxRetries: 5 }))
    const postgres = await startPostgres15()
    if (!postgres) throw new Error('PostgreSQL 15 is not installed: bash scripts/services/clients.sh')
    stops.push(() => postgres.stop())
    const s3 = store === 's3' ? await startObjectStore() : undefined
    if (s3) stops.push(() => s3.stop())
    const content = s3 ? s3.env(prefix) : { BLOB_STORE: `file:${join(folder, 'blobs')}` }
    const common = { DATABASE_URL: postgres.url, ...content, ...env }
    const make = async (kind: Replica['kind'], count: number) => {
      const made: Replica[] = []
      for (let n = 1; n <= count; n++) made.push(await replicaOf(kind, n, common))
      stops.push(async () => {
        for (const one of made) await one.kill()
      })
      // The first brings the schema up; the others need not wait for each other.
      await made[0]?.start()
      const started = await Promise.allSettled(made.slice(1).map((one) => one.start()))
      for (const one of started) if (one.status === 'rejected') throw one.reason
      return made
    }
    return {
      postgres,
      s3,
      folder,
      env: common,
      apis: await make('api', apis),
      workers: await make('worker', workers),
      stop,
    }
  } catch (error) {
    await stop()
    throw error
  }
}

async function replicaOf(kind: Replica['kind'], n: number, env: Record<string, string>): Promise<Replica> {
  const port = await freePort()
  const command = [process.execPath, '--import', 'tsx', 'src/main.ts', 'worker'] as const
  const options =
    kind === 'api'
      ? { port, env: { ...env, WORKER: 'false' } }
      : { port, env: { ...env, WORKER_PORT: String(port) }, command }
  const replica: Replica = {
    ...{ name: `${kind} ${n}`, kind, url: `http://127.0.0.1:${port}`, server: undefined },
    async start() {
      replica.server = await startServer(options)
    },
    async kill() {
      const { server } = replica
      replica.server = undefined
      await server?.kill()
    },
  }
  return replica
}

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      apis: { type: 'string', default: '3' },
      workers: { type: 'string', default: '2' },
      store: { type: 'string', default: 's3' },
      help: { type: 'boolean', short: 'h' },
    },
  })
  const { apis, workers, store } = values
  const env = Object.fromEntries(positionals.map((text) => [text.split('=')[0] ?? '', text.replace(/^[^=]*=/, '')]))
  const wrong = ![apis, workers].every((text) => /^[1-9]$/.test(text)) || !['s3', 'file'].includes(store)
  if (values.help || wrong || positionals.some((text) => !/^[A-Z_0-9]+=/.test(text))) {
    process.stdout.write(
      'usage: node --import tsx scripts/services/replicas.ts [--apis 1-9] [--workers 1-9] [--store s3|file] [NAME=VALUE …]\n' +
        'Replicas over one PostgreSQL and one store on 127.0.0.1, until Ctrl-C. Example: --apis 2 GC_GRACE=10s\n',
    )
    process.exitCode = values.help ? 0 : 2
    return
  }
  const replicas = await startReplicas({
    ...{ apis: Number(apis), workers: Number(workers), env },
    store: store === 's3' ? 's3' : 'file',
  })
  for (const { name, url, server } of [...replicas.apis, ...replicas.workers])
    process.stdout.write(`${name}: ${url} (process ${server?.pid})\n`)
  const settings = Object.entries(replicas.env).map(([name, value]) => `${name}='${value}'`)
  process.stdout.write(`settings of each: ${settings.join(' ')}\nCtrl-C ends all of it.\n`)
  await new Promise<void>((resolve) => {
    const alive = setInterval(() => undefined, 60_000)
    for (const signal of ['SIGINT', 'SIGTERM'] as const) {
      // In tests a signal ends everything on the spot.
      process.removeAllListeners(signal)
      process.once(signal, () => {
        clearInterval(alive)
        resolve()
      })
    }
  })
  await replicas.stop()
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) await main()
