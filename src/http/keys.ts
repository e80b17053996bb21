import type { Context } from 'hono'
import * as v from 'valibot'
import type { Deps } from '../deps.ts'
import { createKey, distrustKey, findKey, type Key, listKeys, rotateKey, trustKey } from '../registry/keys.ts'
import { requireAccess } from './access.ts'
import { jsonBody } from './packs/request.ts'
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
  v.regex(
    /^\d{4}-\d\d-\d\d(?:T\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d))?$/,
    'must be a time such as 2027-01-31T12:00:00Z, or a day',
  ),
  v.transform((text) => new Date(text)),
  v.check((time) => !Number.isNaN(time.getTime()), 'must be a time that there is'),
  v.check((time) => time.getTime() > Date.now(), 'must be in the future'),
)

const commentSchema = v.pipe(
  v.string('must be text'),
  v.maxLength(1000, 'must not be longer than 1000 characters'),
  v.check((text) => !/\0|\p{Surrogate}/u.test(text), 'must not contain NUL or half a surrogate pair'),
)

const createBody = v.strictObject({
  name: nameSchema,
  expires: v.optional(timeSchema),
  comment: v.optional(commentSchema),
})
const rotateBody = v.strictObject({ expires: v.optional(timeSchema) })
const trustBody = v.strictObject({
  name: nameSchema,
  publicKey: v.string('must be the public key in PEM'),
  expires: v.optional(timeSchema),
  comment: v.optional(commentSchema),
})

/** The keys that bundles are signed and verified with. Whoever may change them decides what comes into the registry. */
export function addKeyRoutes(routes: Routes, deps: Deps): void {
  routes.get('/keys', async (c) => {
    requireAccess(c, '*', 'pull')
    return Response.json({ keys: await listKeys(deps) })
  })

  // `/keys/<id>.pem` as well: the public part alone, to be handed to others.
  routes.get('/keys/:id', async (c) => {
    requireAccess(c, '*', 'pull')
    const id = c.req.param('id') ?? ''
    if (!id.endsWith('.pem')) return Response.json({ key: await findKey(deps, id) })
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
    const { name, expires, comment } = await jsonBody(c, createBody)
    return created(await createKey(deps, name, { expiresAt: expires, comment }))
  })

  routes.post('/keys/trusted', async (c) => {
    requireAccess(c, '*', 'delete')
    const { name, publicKey, expires, comment } = await jsonBody(c, trustBody)
    return Response.json({ key: await trustKey(deps, name, publicKey, { expiresAt: expires, comment }) })
  })

  routes.post('/keys/:id/rotate', async (c) => {
    requireAccess(c, '*', 'delete')
    const { expires } = await optionalBody(c)
    return created(await rotateKey(deps, c.req.param('id') ?? '', { expiresAt: expires }))
  })

  routes.delete('/keys/:id', async (c) => {
    requireAccess(c, '*', 'delete')
    return Response.json({ key: await distrustKey(deps, c.req.param('id') ?? '') })
  })
}

function created(key: Key): Response {
  return Response.json({ key }, { status: 201, headers: { location: `/keys/${key.keyid}` } })
}

/** A rotation needs no body. */
async function optionalBody(c: Context<Env>): Promise<v.InferOutput<typeof rotateBody>> {
  const { headers } = c.env.incoming
  const isEmpty = headers['transfer-encoding'] === undefined && Number(headers['content-length'] ?? 0) === 0
  return isEmpty ? {} : jsonBody(c, rotateBody)
}
