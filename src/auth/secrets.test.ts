import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it, mock } from 'node:test'
import { fileURLToPath } from 'node:url'
import bcrypt from 'bcryptjs'
import { isPassword, parseUsers } from './passwords.ts'
import { isSameSecret } from './secrets.ts'

// That the time of an answer tells nothing is no matter of a clock here, whose figures no machine would hold to, but of what
// is done: the same for what is right and what is wrong.

const root = fileURLToPath(new URL('..', import.meta.url))
const files = ['auth', 'http', 'registry'].flatMap((part) =>
  (readdirSync(join(root, part), { recursive: true }) as string[])
    .filter((file) => file.endsWith('.ts') && !file.endsWith('.test.ts'))
    .map((file) => `${part}/${file}`),
)
const codeOf = (file: string) => readFileSync(join(root, file), 'utf8').replace(/\/\*[\s\S]*?\*\/|\/\/.*/g, '')

const secret = String.raw`\w*(?:password|secret|signature|signed|\bmac|hmac|fingerprint|credential|authorization|apitoken)\w*(?:\([^()]*\))?`
const nothing = String.raw`(?!\s*(?:undefined|null|true|false|\d|''|""|typeof))`
const compared = new RegExp(
  String.raw`(?<!typeof )(?<![\w.])(?:\w+\.)*${secret}\s*[!=]==?(?!=)${nothing}|[!=]==?(?!=)\s*(?:\w+\.)*${secret}(?![\w.(])`,
  'gi',
)

describe('secrets', () => {
  it('are compared by their digests, in constant time', () => {
    assert.match(codeOf('auth/secrets.ts'), /return timingSafeEqual\(digestOf\(shown\), digestOf\(expected\)\)/)
    for (const [shown, expected, same] of [
      ['', '', true],
      ['a', 'a', true],
      ['ä'.repeat(1000), 'ä'.repeat(1000), true],
      ['a', 'b', false],
      ['a', 'ab', false],
      ['', 'a', false],
    ] as const)
      assert.equal(isSameSecret(shown, expected), same)
  })

  it('are compared there and nowhere else', () => {
    assert.ok(files.length > 100)
    assert.deepEqual(
      files.filter((file) => /timingSafeEqual/.test(codeOf(file))),
      ['auth/secrets.ts'],
    )
    const found = files.flatMap((file) => (codeOf(file).match(compared) ?? []).map((code) => `${file}: ${code}`))
    assert.deepEqual(found, [])
  })

  it('would be found were they compared as texts are', () => {
    for (const code of [
      'if (password === given) return',
      'return given !== user.passwordHash',
      'deps.auth.fingerprint(hash) === user',
      'mac(secret, text) == given',
      'if (signature !== wanted)',
      'headers.authorization === expected',
      'return given === secret',
    ])
      assert.match(code, new RegExp(compared.source, 'i'), code)
    for (const code of ['secret === undefined', "typeof secret === 'string'", "password !== ''", 'key === other'])
      assert.doesNotMatch(code, new RegExp(compared.source, 'i'), code)
  })
})

describe('a password', () => {
  const users = parseUsers(`alice:${bcrypt.hashSync('right', 5)}\nbob:${bcrypt.hashSync('other', 5)}`)
  const asked: [says: string, users: ReturnType<typeof parseUsers>, name: string, password: string, holds: boolean][] =
    [
      ['is right', users, 'alice', 'right', true],
      ['is wrong', users, 'alice', 'wrong', false],
      ["is somebody else's", users, 'alice', 'other', false],
      ['is of nobody', users, 'carol', 'right', false],
      ['is of what every object has', users, 'constructor', 'right', false],
      ['is longer than bcrypt reads', users, 'alice', 'x'.repeat(73), false],
      ['is of nobody, where there is nobody', parseUsers(''), 'alice', '', false],
    ]
  for (const [says, among, name, password, holds] of asked)
    it(`that ${says} takes one check by bcrypt, of the cost that all have`, async () => {
      const compare = mock.method(bcrypt, 'compare')
      try {
        assert.equal(await isPassword(among, name, password), holds)
        assert.equal(compare.mock.callCount(), 1)
        const hash = String(compare.mock.calls[0]?.arguments[1])
        // Any other hash would be answered without a check.
        assert.match(hash, among.size > 0 ? /^\$2b\$05\$[./A-Za-z0-9]{53}$/ : /^\$2b\$10\$[./A-Za-z0-9]{53}$/)
      } finally {
        compare.mock.restore()
      }
    })
})
