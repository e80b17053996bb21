import * as v from 'valibot'
import { exportStates } from '../db/export-files.ts'

// What is told of exports.

const count = v.pipe(v.number(), v.integer(), v.minValue(0))
const time = v.pipe(v.string(), v.isoTimestamp())
const hex = v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/))

export const exportSchema = v.object({
  id: v.pipe(hex, v.description('Names the bytes of the file: the same request in the same state is the same export.')),
  state: v.picklist(exportStates),
  size: v.pipe(count, v.description('Of the file, in bytes.')),
  written: v.pipe(count, v.description('Bytes that are made so far.')),
  sha256: v.optional(v.pipe(hex, v.description('Of the file, when it is ready.'))),
  index: v.pipe(v.string(), v.description('The digest of index.json in the file.')),
  blobs: v.pipe(count, v.description('How many files it has under blobs/.')),
  bytes: v.pipe(count, v.description('The sum of their sizes.')),
  packs: v.pipe(count, v.description('Versions of packs in it.')),
  channels: count,
  referrers: count,
  leftOut: v.pipe(count, v.description('Blobs that the inventory has.')),
  signedBy: v.pipe(v.array(v.string()), v.description('The key ids.')),
  by: v.pipe(v.string(), v.description('Who asked for it first.')),
  createdAt: time,
  finishedAt: v.optional(time),
  expiresAt: v.pipe(time, v.description('When it is removed.')),
  error: v.optional(v.string()),
})
export const exportAnswer = v.object({ export: exportSchema })
export const exportsAnswer = v.object({ exports: v.array(exportSchema), next: v.optional(v.string()) })
export const exportDeleted = v.object({ deleted: v.boolean() })
