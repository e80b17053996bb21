// The alert rules and the queries of the dashboard as Prometheus itself takes them: promtool checks that they are PromQL, and
// plays through what should fire and what should not.
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { it } from 'node:test'
import { stringify } from 'yaml'
import type { Dashboard } from '../scripts/deploy/figures.ts'
import { temporaryFolder } from './server.ts'

const scripts = join(import.meta.dirname, '..', 'scripts')
const clients = execFileSync('bash', [join(scripts, 'services', 'clients.sh')], { encoding: 'utf8' }).trim()

function promtool(...args: string[]): string {
  return execFileSync(join(clients, 'promtool'), args, {
    cwd: join(scripts, 'deploy'),
    encoding: 'utf8',
    stdio: 'pipe',
  })
}

it('the rules are such', () => {
  assert.match(promtool('check', 'rules', 'alerts.yaml'), /SUCCESS: [1-9]\d+ rules found/)
})

it('they fire when they should, and only then', () => {
  assert.match(promtool('test', 'rules', 'alerts.test.yaml'), /SUCCESS/)
})

it('the queries of the dashboard are such', () => {
  const { panels } = JSON.parse(readFileSync(join(scripts, 'deploy', 'dashboard.json'), 'utf8')) as Dashboard
  const queries = panels.flatMap(({ targets = [] }) => targets.map(({ expr }) => expr))
  const rules = queries.map((expr, i) => ({
    record: `query:${i}`,
    expr: expr.replaceAll('$__rate_interval', '5m').replace(/\$\w+/g, '.*'),
  }))
  const folder = temporaryFolder()
  try {
    writeFileSync(join(folder, 'queries.yaml'), stringify({ groups: [{ name: 'dashboard', rules }] }))
    assert.match(promtool('check', 'rules', join(folder, 'queries.yaml')), new RegExp(`${queries.length} rules found`))
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
})
