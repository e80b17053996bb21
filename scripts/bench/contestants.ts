import { execFile } from 'node:child_process'
import { access, constants, mkdir, writeFile } from 'node:fs/promises'
import { delimiter, join, resolve } from 'node:path'
import { promisify } from 'node:util'
import { freePort } from '../services/processes.ts'
import { type Launch, type Server, startServer } from './processes.ts'
import { type Samples, writeSamples } from './samples.ts'

type Place = { readonly folder: string; readonly port: number; readonly processes: number; readonly samples: Samples }
type Contestant = (place: Place) => Promise<Pick<Launch, 'command' | 'args' | 'ready' | 'env'>>

const run = promisify(execFile)

function packsLaunch({ folder, port, processes }: Omit<Place, 'samples'>) {
  return {
    command: process.execPath,
    args: ['--import', 'tsx', 'src/main.ts', 'serve'],
    ready: '/readyz',
    env: {
      HOST: '127.0.0.1',
      PORT: String(port),
      DATA_DIR: folder,
      PROCESSES: String(processes),
      LOG_LEVEL: 'warn',
      DATABASE_URL: undefined,
      BLOB_STORE: undefined,
    },
  }
}

/** How each server is started. A function throws, in words for the table, when its program is not to be had. */
export const contestants = {
  packs: async (place) => packsLaunch(place),

  olareg: async ({ folder, port }) => ({
    command: await program({
      name: 'olareg',
      setting: 'OLAREG',
      module: 'github.com/olareg/olareg/cmd/olareg@latest',
    }),
    args: [
      ...['serve', '--addr', '127.0.0.1', '--port', String(port), '--dir', folder],
      ...['--api-delete', '--api-blob-delete', '--verbosity', 'error'],
    ],
    ready: '/v2/',
  }),

  // Debian's package, version 2.8.2.
  'docker-registry': async ({ folder, port }) => ({
    command: await program({ name: 'docker-registry', setting: 'DOCKER_REGISTRY' }),
    args: ['serve', await distributionConfig(folder, port)],
    ready: '/v2/',
  }),

  distribution: async ({ folder, port }) => ({
    command: await program({
      name: 'registry',
      setting: 'DISTRIBUTION',
      module: 'github.com/distribution/distribution/v3/cmd/registry@latest',
    }),
    args: ['serve', await distributionConfig(folder, port)],
    ready: '/v2/',
    env: { OTEL_TRACES_EXPORTER: 'none' },
  }),

  // Not a registry: the same bytes as plain files, as the ceiling for reads on this machine.
  nginx: async ({ folder, port, samples }) => {
    const command = await program({ name: 'nginx', setting: 'NGINX' })
    await writeSamples(folder, samples)
    return { command, args: ['-p', folder, '-c', await nginxConfig(folder, port)], ready: '/v2/bench/tags/tags/list' }
  },
} as const satisfies Record<string, Contestant>

export type ContestantName = keyof typeof contestants
export const contestantNames = Object.keys(contestants) as ContestantName[]

/** Starts one of them on a free port, with a data folder of its own below `folder`. */
export async function startContestant(
  name: ContestantName,
  { folder: parent, label = name, processes, samples }: Omit<Place, 'port'> & { label?: string },
): Promise<Server> {
  const folder = join(parent, label)
  await mkdir(folder)
  const port = await freePort()
  const how = await contestants[name]({ folder, port, processes, samples })
  return startServer({ ...how, origin: `http://127.0.0.1:${port}`, folder })
}

/** This registry by itself; `env` over the settings that the comparison uses. */
export async function startPacks({
  folder: parent,
  label,
  processes,
  env = {},
}: {
  folder: string
  label: string
  processes: number
  env?: Record<string, string>
}): Promise<Server> {
  const folder = join(parent, label)
  await mkdir(folder)
  const port = await freePort()
  const how = packsLaunch({ folder, port, processes })
  return startServer({ ...how, env: { ...how.env, ...env }, origin: `http://127.0.0.1:${port}`, folder })
}

/**
 * Where a program is: what the setting names, else on PATH or where Go installs, else installed by Go now (kept in
 * .cache). Throws when there is none.
 */
async function program({ name, setting, module }: { name: string; setting: string; module?: string }): Promise<string> {
  const named = process.env[setting]
  if (named !== undefined) return named
  const built = resolve('.cache/bench/bin')
  const places = [...(process.env.PATH ?? '').split(delimiter), process.env.GOBIN, built, '/usr/sbin']
  for (const place of places) {
    if (place && (await executable(join(place, name)))) return join(place, name)
  }
  if (module === undefined) throw new Error(`no ${name} on PATH; install Debian's package`)
  try {
    await run('go', ['install', module], { env: { ...process.env, GOBIN: built }, timeout: 300_000 })
  } catch (error) {
    throw new Error(`no ${name} on PATH or in ${setting}, and go install ${module} did not work`, { cause: error })
  }
  return join(built, name)
}

async function executable(file: string): Promise<boolean> {
  return access(file, constants.X_OK).then(
    () => true,
    () => false,
  )
}

async function distributionConfig(folder: string, port: number): Promise<string> {
  const file = join(folder, 'config.yml')
  const lines = [
    'version: 0.1',
    'log: { level: error, accesslog: { disabled: true } }',
    'storage:',
    `  filesystem: { rootdirectory: ${JSON.stringify(join(folder, 'data'))} }`,
    '  cache: { blobdescriptor: inmemory }',
    '  delete: { enabled: true }',
    `http: { addr: "127.0.0.1:${port}" }`,
  ]
  await writeFile(file, `${lines.join('\n')}\n`)
  return file
}

async function nginxConfig(folder: string, port: number): Promise<string> {
  const file = join(folder, 'nginx.conf')
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
  const lines = [
    // As root, the workers would be www-data, who cannot look into a folder of root's.
    ...(process.getuid?.() === 0 ? ['user root;'] : []),
    'daemon off; worker_processes 2; error_log stderr error;',
    `pid ${folder}/nginx.pid;`,
    'events { worker_connections 512; }',
    'http {',
    '  access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000000;',
    ...temporary.map((kind) => `  ${kind}_temp_path ${folder}/${kind};`),
    `  server { listen 127.0.0.1:${port}; root ${folder}; }`,
    '}',
  ]
  await writeFile(file, `${lines.join('\n')}\n`)
  return file
}
