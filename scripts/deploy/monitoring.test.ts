import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { parse } from 'yaml'
import { type Dashboard, figures, figuresIn, type Rule } from './figures.ts'
import { read } from './image.ts'

// What Prometheus and Grafana are given. Whether the rules are PromQL, and fire when they should: conformance/alerts.test.ts.

const known = figures()
const names = known.map(({ name }) => name)
const rules = (
  parse(read(import.meta.dirname, 'alerts.yaml'), { strict: true }) as { groups: { name: string; rules: Rule[] }[] }
).groups.flatMap((group) => group.rules)
const dashboard = JSON.parse(read(import.meta.dirname, 'dashboard.json')) as Dashboard

describe('figures', () => {
  test('have names, units and labels as Prometheus wants them', () => {
    assert.ok(names.length > 30)
    assert.equal(new Set(names).size, names.length)
    for (const { name, help, labels } of known) {
      assert.match(name, /^[a-z][a-z0-9_]*[a-z0-9]$/)
      assert.ok(help.length > 0, name)
      // Prometheus puts these on every series it scrapes: one of ours would be renamed.
      for (const label of ['job', 'instance']) assert.ok(!labels.includes(label), `${name} has the label ${label}`)
    }
  })
})

describe('alerts.yaml', () => {
  test('asks only for figures that there are', () => {
    for (const { alert, expr } of rules) {
      const used = figuresIn(expr, known)
      assert.ok(used.length > 0, alert)
      assert.deepEqual(
        used.filter((name) => !names.includes(name)),
        [],
        alert,
      )
    }
  })

  test('every alert says how bad it is, what it means, and what to do', () => {
    assert.equal(new Set(rules.map(({ alert }) => alert)).size, rules.length)
    const text = read(import.meta.dirname, '../../spec/operations.md')
    for (const { alert, labels, annotations } of rules) {
      assert.match(alert, /^Packs[A-Z]\w+$/)
      assert.match(labels.severity, /^(?:critical|warning)$/, alert)
      assert.ok(annotations.summary && annotations.description, alert)
      assert.ok(text.includes(`\`${alert}\``), `spec/operations.md says nothing of ${alert}`)
    }
  })
})

describe('dashboard.json', () => {
  const panels = dashboard.panels.filter(({ type }) => type !== 'row')
  const queries = panels.flatMap(({ title, targets = [] }) => targets.map(({ expr }) => ({ title, expr })))

  test('asks only for figures that there are', () => {
    for (const { title, expr } of queries)
      assert.deepEqual(
        figuresIn(expr, known).filter((name) => !names.includes(name)),
        [],
        title,
      )
  })

  test('can be imported: a uid, a data source to choose, panels that do not overlap', () => {
    assert.match(dashboard.uid, /^[a-zA-Z0-9_-]{1,40}$/)
    const variables = dashboard.templating.list
    assert.equal(variables[0]?.type, 'datasource')
    const place = `\${${variables[0]?.name}}`
    for (const { title, datasource, targets = [] } of panels)
      for (const { uid } of [datasource, ...targets.map((target) => target.datasource)].filter(
        (one) => one !== undefined,
      ))
        assert.equal(uid, place, title)
    const variable = new Set([...variables.map(({ name }) => name), '__rate_interval'])
    for (const { title, expr } of queries)
      for (const [, name = ''] of expr.matchAll(/\$(\w+)/g)) assert.ok(variable.has(name), `${title}: $${name}`)
    assert.equal(new Set(dashboard.panels.map(({ id }) => id)).size, dashboard.panels.length)
    for (const [i, a] of dashboard.panels.entries()) {
      assert.ok(a.gridPos.x + a.gridPos.w <= 24, a.title)
      for (const b of dashboard.panels.slice(i + 1)) assert.ok(apart(a.gridPos, b.gridPos), `${a.title}, ${b.title}`)
    }
  })
})

type Box = { x: number; y: number; w: number; h: number }

function apart(a: Box, b: Box): boolean {
  return a.x + a.w <= b.x || b.x + b.w <= a.x || a.y + a.h <= b.y || b.y + b.h <= a.y
}
