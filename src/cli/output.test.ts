import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { describe, it } from 'node:test'

const hostile = 'a\u001b]0;title\u0007b\u009b2Jc\u202ed\u001b[1me\u001b[31mf\r\tg'

/** What a result with this text has on stdout, byte for byte. */
function written(options: object, text: string): string {
  const module = import.meta.resolve('./output.ts')
  const script = `import { openOutput } from ${JSON.stringify(module)}
    openOutput({}, ${JSON.stringify(options)}).result(${JSON.stringify({ text })}, () => ${JSON.stringify(text)})`
  const args = ['--import', import.meta.resolve('tsx'), '--input-type=module', '--eval', script]
  return execFileSync(process.execPath, args, { encoding: 'utf8' })
}

describe('a result', () => {
  it('does nothing to a terminal, whoever wrote its words', () => {
    assert.equal(written({}, hostile), 'a]0;titleb2Jcd\u001b[1me[31mf\tg\n')
  })
  it('is the same words in JSON, all escaped', () => {
    const document = written({ json: true }, hostile)
    // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
    assert.doesNotMatch(document, /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u202e]/)
    assert.deepEqual(JSON.parse(document), { text: hostile })
  })
})
