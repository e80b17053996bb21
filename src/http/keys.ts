import type { Context } from 'hono'
import * as v from 'valibot'
import { keyStates } from '../db/keys.ts'
import type { Deps } from '../deps.ts'
import { createKey, distrustKey, findKey, type Key, listKeys, rotateKey, trustKey } from '../registry/keys.ts'
import { requireAccess } from './access.ts'
import { momentGrammar, parseMoment } from './moment.ts'
import type { Answer } from './packs/answers.ts'
import { jsonBody, nameParam, noQuery, queryOf } from './packs/request.ts'
import type { Env, Routes } from './routes.ts'

/** The name of a key: as a person calls it. It may not look like a key id, nor end as the address of its PEM does. */
const nameSchema = v.pipe(
  v.string('must be text'),
  v.maxLength(100, 'must not be longer than 100 characters'),
  v.regex(/^[a-z0-9]+(?:[._-][a-z0-9]+)*$/, 'must be lowercase letters and digits, joined by single ".", "_" or "-"'),
  v.check((name) => !name.endsWith('.pem'), 'must not end in .pem'),
)

const timeSchema = v.pipe(
  v.string('must be text'),
  v.regex(momentGrammar, 'must be a time such as 2027-01-31T12:00:00Z, or a day'),
  v.examples(['2027-01-31T12:00:00Z', '2027-01-31']),
  v.check((text) => parseMoment(text) !== undefined, 'must be a time that there is'),
  v.transform((text) => new Date(text)),
  v.check((time) => time.getTime() > Date.now(), 'must be in the future'),
)

const commentSchema = v.pipe(
  v.string('must be text'),
  v.maxLength(1000, 'must not be longer than 1000 characters'),
  v.check((text) => !/\0|\p{Surrogate}/u.test(text), 'must not contain NUL or half a surrogate pair'),
)

export const createBody = v.strictObject({
  name: nameSchema,
  expires: v.optional(timeSchema),
  comment: v.optional(commentSchema),
})
export const rotateBody = v.strictObject({ expires: v.optional(timeSchema) })
export const trustBody = v.strictObject({
  name: nameSchema,
  publicKey: v.pipe(v.string('must be the public key in PEM'), v.description('In PEM.')),
  expires: v.optional(timeSchema),
  comment: v.optional(commentSchema),
})

const isoTime = v.pipe(v.string(), v.isoTimestamp())

export const keySchema = v.object({
  keyid: v.pipe(v.string(), v.description('The digest of the public key.')),
  name: v.string(),
  state: v.picklist(keyStates),
  own: v.pipe(v.boolean(), v.description('The registry has its private part.')),
  comment: v.optional(v.string()),
  publicKey: v.pipe(v.string(), v.description('In PEM.')),
  createdAt: isoTime,
  expiresAt: v.optional(isoTime),
  retiredAt: v.optional(isoTime),
  distrustedAt: v.optional(isoTime),
})
export const keyAnswer = v.object({ key: keySchema })
export const keysAnswer = v.object({ keys: v.array(keySchema) })

/** The keys that bundles are signed and verified with. Whoever may change them decides what comes into the registry. */
export function addKeyRoutes(routes: Routes, deps: Deps): void {
  routes.get('/keys', async (c) => {
    requireAccess(c, '*', 'pull')
    queryOf(c, noQuery)
    return Response.json({ keys: await listKeys(deps) } satisfies Answer<typeof keysAnswer>)
  })

  // `/keys/<id>.pem` as well: the public part alone, to be handed to others.
  routes.get('/keys/:id', async (c) => {
    requireAccess(c, '*', 'pull')
    const id = nameParam(c, 'id')
    queryOf(c, noQuery)
    if (!id.endsWith('.pem')) return Response.json({ key: await findKey(deps, id) } satisfies Answer<typeof keyAnswer>)
    const { publicKey, name } = await findKey(deps, id.slice(0, -'.pem'.length))
    return new Response(publicKey, {
      headers: {
        'content-type': 'application/x-pem-file',
        'content-disposition': `attachment; filename="${name}.pem"`,
      },
    })
  })

  routes.post('/keys', async (c) => {
    requireAccess(c, '*', 'delete')
    queryOf(c, noQuery)
    const { name, expires, comment } = await jsonBody(c, createBody)
    return created(await createKey(deps, name, { expiresAt: expires, comment }))
  })

  routes.post('/keys/trusted', async (c) => {
    requireAccess(c, '*', 'delete')
    queryOf(c, noQuery)
    const { name, publicKey, expires, comment } = await jsonBody(c, trustBody)
    const key = await trustKey(deps, name, publicKey, { expiresAt: expires, comment })
    return Response.json({ key } satisfies Answer<typeof keyAnswer>)
  })

  routes.post('/keys/:id/rotate', async (c) => {
    requireAccess(c, '*', 'delete')
    queryOf(c, noQuery)
    const { expires } = await optionalBody(c)
    return created(await rotateKey(deps, nameParam(c, 'id'), { expiresAt: expires }))
  })

  routes.delete('/keys/:id', async (c) => {
    requireAccess(c, '*', 'delete')
    queryOf(c, noQuery)
    const key = await distrustKey(deps, nameParam(c, 'id'))
    return Response.json({ key } satisfies Answer<typeof keyAnswer>)
  })
}

function created(key: Key): Response {
  return Response.json({ key } satisfies Answer<typeof keyAnswer>, {
    status: 201,
    headers: { location: `/keys/${key.keyid}` },
  })
}

/** A rotation needs no body. */
async function optionalBody(c: Context<Env>): Promise<v.InferOutput<typeof rotateBody>> {
  const { headers } = c.env.incoming
  const isEmpty = headers['transfer-encoding'] === undefined && Number(headers['content-length'] ?? 0) === 0
  return isEmpty ? {} : jsonBody(c, rotateBody)
}
