import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { it } from 'node:test'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('.', import.meta.url))

/** What each part may import of the others; itself always. The map is drawn in spec/architecture.md. */
const allowed: Record<string, string[]> = {
  'main.ts': ['cli'],
  cli: [
    'server.ts',
    'processes.ts',
    'deps.ts',
    'config.ts',
    'log.ts',
    'client',
    'registry',
    'db',
    'blobs',
    'worker',
    'packs',
    'bundles',
    'auth',
    'oci',
    'errors.ts',
  ],
  'server.ts': ['app.ts', 'deps.ts', 'config.ts', 'log.ts', 'http'],
  'processes.ts': ['log.ts'],
  'app.ts': ['http', 'deps.ts', 'errors.ts'],
  worker: ['registry', 'db', 'deps.ts', 'errors.ts', 'log.ts'],
  http: ['registry', 'db', 'oci', 'packs', 'auth', 'deps.ts', 'errors.ts', 'random.ts', 'cron.ts'],
  registry: ['db', 'blobs', 'bundles', 'remote', 'oci', 'packs', 'auth', 'deps.ts', 'errors.ts'],
  'deps.ts': ['db', 'auth', 'blobs', 'oci', 'config.ts', 'errors.ts', 'log.ts', 'metrics.ts'],
  remote: ['oci', 'errors.ts'],
  db: ['blobs/keys.ts', 'oci', 'packs', 'errors.ts'],
  blobs: ['oci', 'errors.ts', 'metrics.ts', 'random.ts'],
  auth: ['oci'],
  bundles: ['oci', 'packs', 'errors.ts'],
  client: [],
  packs: ['oci', 'errors.ts'],
  oci: ['errors.ts'],
  'errors.ts': [],
  'config.ts': ['auth/glob.ts', 'auth/policy.ts', 'cron.ts'],
  'cron.ts': [],
  'random.ts': [],
  'log.ts': [],
  'metrics.ts': ['shared-metrics.ts'],
  'shared-metrics.ts': [],
}
/** Packages that one part alone may use. */
const owners: Record<string, string[]> = {
  hono: ['http', 'app.ts'],
  '@hono/node-server': ['http', 'server.ts'],
  postgres: ['db'],
  '@aws-sdk/client-s3': ['blobs'],
  pino: ['log.ts'],
  commander: ['cli', 'main.ts'],
  valibot: ['config.ts', 'packs', 'http', 'auth'],
  jose: ['auth'],
  bcryptjs: ['auth'],
  'rate-limiter-flexible': ['http', 'processes.ts'],
  '@valibot/to-json-schema': ['http'],
  semver: ['packs'],
  'tar-stream': ['bundles', 'cli'],
  'pg-boss': ['db'],
  'cron-parser': ['worker', 'cron.ts'],
}

const files = (readdirSync(root, { recursive: true }) as string[]).filter(
  (file) => file.endsWith('.ts') && !/\.test\.ts$|^testing\/|suite\.ts$/.test(file),
)
const importsOf = (file: string) =>
  [...readFileSync(join(root, file), 'utf8').matchAll(/(?:from|import)\s*\(?\s*'([^']+)'/g)].map(
    (match) => match[1] ?? '',
  )
const partOf = (file: string) => file.split('/')[0] ?? ''

it('each part imports only what the map allows', () => {
  assert.ok(files.length > 40)
  const wrong: string[] = []
  for (const file of files)
    for (const target of importsOf(file).filter((name) => name.startsWith('.'))) {
      const to = relative(root, join(root, dirname(file), target))
      const may = [partOf(file), ...(allowed[partOf(file)] ?? [])]
      if (!may.includes(partOf(to)) && !may.includes(to)) wrong.push(`${file} → ${to}`)
    }
  assert.deepEqual(wrong, [])
})

it('each package is used by its owner only', () => {
  const wrong: string[] = []
  for (const file of files)
    for (const name of importsOf(file))
      for (const [library, parts] of Object.entries(owners))
        if ((name === library || name.startsWith(`${library}/`)) && !parts.includes(partOf(file)))
          wrong.push(`${file} → ${name}`)
  assert.deepEqual(wrong, [])
})

it('process.env and process.exit stay at the edge', () => {
  const code = (file: string) => readFileSync(join(root, file), 'utf8').replace(/\/\*[\s\S]*?\*\/|\/\/.*/g, '')
  const wrong = files.filter((file) => file !== 'main.ts' && /process\.(?:env|exit\()/.test(code(file)))
  assert.deepEqual(wrong, [])
})

/** Whether code has an `await` before its first function, which is where tests would have it. */
function awaitsNow(code: string): boolean {
  return /^(?:(?!\basync\b|=>|\bfunction\b)[\s\S])*?\bawait\b/.test(code)
}

// When every test that the runner knows of has ended, it runs the file's "after" hooks. A file that then still awaits
// something before its next test finds its database stopped: only on a slow machine, once in a hundred runs.
it('a test file awaits nothing between its tests', () => {
  const tests = (folder: string) =>
    (readdirSync(join(root, '..', folder), { recursive: true }) as string[])
      .filter((file) => file.endsWith('.test.ts'))
      .map((file) => join(folder, file))
  const wrong = ['src', 'scripts', 'conformance'].flatMap(tests).filter((file) => {
    const [, ...afterFirst] = readFileSync(join(root, '..', file), 'utf8').split(/^(?:describe|it|test)\b/m)
    // A statement begins where a line does. What it awaits in a function that it defines, it does not await now.
    const statements = afterFirst.join('').split(/\n(?=[\w[{(])/)
    return statements.some((text) => /^(?:for |const |let |\w[^\n]* = |await\b)/.test(text) && awaitsNow(text))
  })
  assert.deepEqual(wrong, [])
})
