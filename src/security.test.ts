import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { describe, it } from 'node:test'
import { fileURLToPath } from 'node:url'

// That what spec/security.md says is shown by a test is shown by one: the file is there, and has a test, a group of them or
// a row of a table by that name.

const root = new URL('..', import.meta.url)
const text = readFileSync(new URL('spec/security.md', root), 'utf8')
const rows = text.split('\n').filter((line) => line.startsWith('| ') && line.includes(' › '))
const named = rows.flatMap((row) => [...row.matchAll(/`([^`]+) › ([^`]+)`/g)])

/** What is wrong with a test that is named; undefined: nothing. */
function wrongWith(file: string, title: string): string | undefined {
  const path = fileURLToPath(new URL(file, root))
  if (!/\.test\.ts$/.test(file) || !existsSync(path)) return `${file} is no file of tests`
  const quoted = title.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&')
  const place = new RegExp(`(?:\\b(?:it|test|describe)\\(|\\bname: |\\[)\\s*(['"\`])${quoted}\\1`)
  return place.test(readFileSync(path, 'utf8')) ? undefined : `${file} has no test "${title}"`
}

describe('spec/security.md', () => {
  it('names a test for every threat, by its file and its title', () => {
    assert.ok(rows.length > 35 && named.length > 80)
    for (const row of rows) assert.match(row, /`[^`]+ › [^`]+` \|$/)
  })

  it('names only tests that there are', () => {
    assert.deepEqual(
      named.map(([, file = '', title = '']) => wrongWith(file, title)).filter((wrong) => wrong !== undefined),
      [],
    )
  })

  it('could not name others', () => {
    assert.ok(wrongWith('src/none.test.ts', 'names only tests that there are'))
    assert.ok(wrongWith('src/app.ts', 'names only tests that there are'))
    assert.ok(wrongWith('src/security.test.ts', 'names only'))
    assert.ok(wrongWith('src/security.test.ts', 'what is wrong with'))
    assert.equal(wrongWith('src/security.test.ts', 'could not name others'), undefined)
  })
})
