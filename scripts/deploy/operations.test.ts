import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import type { Command } from 'commander'
import { parse } from 'yaml'
import { program } from '../../src/cli/program.ts'
import { figures, figuresIn, type Rule } from './figures.ts'
import { assertSettings, read, root } from './image.ts'
import { renewed } from './operations.ts'

// That what spec/operations.md says exists: an operator who types it at night must not find otherwise.

const text = read(root, 'spec', 'operations.md')
const blocks = [...text.matchAll(/^```(\w+)\n(.*?)^```$/gms)].map(([, language = '', code = '']) => ({
  language,
  code,
}))
const codeOf = (language: string) => blocks.filter((block) => block.language === language).map(({ code }) => code)
const prose = text.replace(/^```.*?^```$/gms, '').replace(/<!-- (\w+): .*?<!-- \/\1 -->/gs, '')
const spans = [...prose.matchAll(/`([^`\n]+)`/g)].map(([, code = '']) => code)

test('its tables are what the code says', () => {
  assert.ok(renewed(text) === text, 'spec/operations.md is out of date: npm run operations')
})

test('its links lead somewhere', () => {
  const anchors = new Set(
    [...text.matchAll(/^#+ (.+)$/gm)].map(([, title = '']) =>
      title
        .toLowerCase()
        .replace(/[^\w\s-]/g, '')
        .replaceAll(' ', '-'),
    ),
  )
  const links = [...prose.matchAll(/\]\(([^)\s]+)\)/g)].map(([, target = '']) => target)
  assert.ok(links.length > 20)
  for (const link of links)
    assert.ok(link.startsWith('#') ? anchors.has(link.slice(1)) : existsSync(join(root, 'spec', link)), link)
  for (const span of spans.filter((code) => /^scripts\/\S+$/.test(code))) assert.ok(existsSync(join(root, span)), span)
})

describe('commands', () => {
  const packs = program({}, () => undefined)
  const lines = codeOf('sh').flatMap((code) => code.split('\n'))
  const isOne = (line: string) => /^(?:npx )?packs [a-z]/.test(line)
  const [typed, named] = [lines.filter(isOne), spans.filter(isOne)]

  test('that it quotes exist, with these flags and arguments', () => {
    assert.ok(typed.length > 12 && named.length > 12)
    for (const line of typed) checkCommand(packs, line)
    for (const line of named) checkCommand(packs, line, { isWhole: false })
  })

  test('a command that there is not would be seen', () => {
    for (const line of [
      'packs jobs lst',
      'packs jobs show',
      'packs jobs list --ded',
      'packs jobs list -x',
      'packs gc now',
      'packs jobs retry --all',
    ])
      assert.throws(() => checkCommand(packs, line), assert.AssertionError, line)
  })

  test('of compose and kubectl name files that are there', () => {
    for (const [, file = ''] of lines.join('\n').matchAll(/(scripts\/\S+)/g))
      assert.ok(existsSync(join(root, file)) || file.endsWith('/.env'), file)
    for (const [, file = ''] of lines.join('\n').matchAll(/-f (\w\S*\.yaml)/g))
      assert.ok(
        file === 'secret.yaml' ||
          existsSync(join(root, 'scripts/deploy/kubernetes', file)) ||
          existsSync(join(root, file)),
        file,
      )
  })
})

test('settings that it sets exist', () => {
  const set = [...codeOf('ini'), ...codeOf('sh')]
    .join('\n')
    .matchAll(/^(?:Environment=)?([A-Z][A-Z_]+)=|-e ([A-Z][A-Z_]+)/gm)
  const names = [...set].map(([, written, passed]) => written ?? passed ?? '')
  assert.ok(names.length > 6)
  assertSettings(names)
  assertSettings(spans.flatMap((code) => /^([A-Z]{2,}(?:_[A-Z]+)+)(?:=.*)?$/.exec(code)?.[1] ?? []).filter(isOurs))
})

/** Names in capitals that are another program's. */
const isOurs = (name: string) => !/^(?:AWS|NODE)_/.test(name)

test('the unit starts what there is, and stops it gently', () => {
  const [unit = ''] = codeOf('ini').filter((code) => code.includes('[Service]'))
  const [, script = ''] = /^ExecStart=\S+node --import tsx (\S+) serve$/m.exec(unit) ?? []
  assert.ok(existsSync(join(root, script)), unit)
  assert.match(unit, /^KillMode=mixed$/m)
  assert.ok(Number(/^TimeoutStopSec=(\d+)$/m.exec(unit)?.[1]) > 30)
})

test('figures and alerts that it names exist', () => {
  const known = figures()
  const named = figuresIn([...spans, ...blocks.map(({ code }) => code)].join('\n'), known)
  assert.deepEqual(
    named.filter((name) => !known.some((figure) => figure.name === name)),
    [],
  )
  const { groups } = parse(read(import.meta.dirname, 'alerts.yaml')) as { groups: { rules: Rule[] }[] }
  const alerts = groups.flatMap(({ rules }) => rules.map(({ alert }) => alert))
  const told = spans.filter((code) => /^Packs[A-Z]\w+$/.test(code))
  assert.deepEqual(
    told.filter((name) => !alerts.includes(name)),
    [],
  )
})

/**
 * Throws an AssertionError unless the program has the command of this line, its flags, and a place for its arguments.
 * `isWhole`: all arguments that it needs must be there; a sentence may name a command without them.
 */
function checkCommand(packs: Command, line: string, { isWhole = true } = {}): void {
  const [text = ''] = line.replace(/^npx /, '').split(/\s+(?:[|#]|>|&&)/)
  const words = [...text.matchAll(/'[^']*'|"[^"]*"|\S+/g)].map(([word]) => word).slice(1)
  let command = packs
  let given = 0
  while (words.length > 0) {
    const word = words.shift() ?? ''
    const below = command.commands.find((one) => one.name() === word || one.aliases().includes(word))
    if (/^--?[a-z]/.test(word)) {
      const [flag] = word.split('=')
      const option = command.options.find(({ long, short }) => long === flag || short === flag)
      assert.ok(option, `${line}: ${command.name()} has no ${word}`)
      if (option.required && !word.includes('='))
        assert.ok(words.shift() !== undefined, `${line}: ${word} takes a value`)
    } else if (below && given === 0) command = below
    else given++
  }
  assert.ok(command !== packs, line)
  const { registeredArguments: places } = command
  const least = isWhole ? places.filter(({ required }) => required).length : 0
  assert.ok(given >= least && (given <= places.length || places.at(-1)?.variadic), `${line}: ${given} arguments`)
}
