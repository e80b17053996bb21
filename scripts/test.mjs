// `npm test`: every *.test.ts under src and scripts. `node scripts/test.mjs conformance`: the black-box tests, one file
// at a time, since they start whole servers, freeze services and count processes.
// The list of files is passed on: on Node 20 `node --test <glob>` can run nothing and still exit 0.
import { spawnSync } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'

const root = join(import.meta.dirname, '..')
const [only, ...more] = process.argv.slice(2)
const folders = only ? [only] : ['src', 'scripts']
const files = folders
  .flatMap((folder) => readdirSync(join(root, folder), { recursive: true }).map((path) => join(folder, String(path))))
  .filter((path) => path.endsWith('.test.ts'))
  .sort()
if (files.length === 0) {
  console.error(`no test files under ${folders.join(' or ')}`)
  process.exit(1)
}

const concurrency = only === 'conformance' ? 1 : availableParallelism()
const { status, signal } = spawnSync(
  process.execPath,
  [
    '--import',
    'tsx',
    '--test',
    '--test-reporter=spec',
    `--test-concurrency=${concurrency}`,
    '--test-timeout=1200000', // a test that hangs ends the run in words, not in the machine's own time limit
    ...more,
    ...files,
  ],
  { cwd: root, stdio: 'inherit' },
)
process.exit(status ?? (signal ? 1 : 0))
