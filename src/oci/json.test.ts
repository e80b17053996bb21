import assert from 'node:assert/strict'
import { it } from 'node:test'
import { hasMoreParts } from './json.ts'

/** How many parts a text has, by asking for ever more. */
function partsOf(text: string): number {
  let most = 0
  while (hasMoreParts(Buffer.from(text), most)) most += 1
  return most
}

it('the parts of JSON are counted where they are some, and not in texts', () => {
  for (const [text, parts] of [
    ['', 0],
    ['1', 0],
    ['[]', 1],
    ['{"a":[1,2],"b":{}}', 5],
    ['[{},{},{}]', 6],
    ['",{[,{["', 0],
    ['["\\",[","\\\\",1]', 3],
    ['["é,",{}]', 3],
    ['"a, [ without an end', 0],
    ['"\\', 0],
  ] as const)
    assert.equal(partsOf(text), parts, text)
})
