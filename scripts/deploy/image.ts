import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { settings } from '../../src/config.ts'
import { type Instruction, pairsOf, parseContainerfile } from './containerfile.ts'

export const root = resolve(import.meta.dirname, '../..')
export const read = (...path: string[]) => readFileSync(join(...path), 'utf8')

export const instructions = parseContainerfile(read(root, 'Containerfile'))
const last = instructions.at(-1)?.stage

/** The instructions of that name in the stage that becomes the image. */
export const final = (name: string): Instruction[] =>
  instructions.filter((one) => one.stage === last && one.name === name)

export function only(name: string): string {
  const [first, ...more] = final(name)
  assert.ok(first && more.length === 0, `one ${name}`)
  return first.rest
}

/** What the image sets. */
export const imageEnv = pairsOf(
  final('ENV')
    .map(({ rest }) => rest)
    .join(' '),
)

/** What the registry reads besides its settings: the AWS SDK's usual chain. */
const alsoRead = /^AWS_[A-Z_]+$/

export function assertSettings(names: Iterable<string>): void {
  for (const name of names) assert.ok(name in settings || alsoRead.test(name), `${name} is no setting of the registry`)
}
