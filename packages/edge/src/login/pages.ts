import { createHash } from 'node:crypto'
import type { ServerResponse } from 'node:http'
import type { ErrorCode } from '@postern/shared/errors'

/** The few pages a person sees: plain HTML from the server, no script, nothing from elsewhere. All text is
 *  escaped by `html`, so that no claim of a provider and no parameter of a link can become markup. */

/** Markup that is finished; everything else is text and gets escaped. */
class Markup {
  readonly text: string
  constructor(text: string) {
    this.text = text
  }
}

export interface ErrorPage {
  code: ErrorCode
  message: string
  /** The next step. */
  hint: string
  /** A refused account can be changed, or the command line told that nothing came of it. */
  retry?: { anotherAccountPath: string; cancelPath: string; redirectOrigin: string | undefined }
}

export interface ConfirmPage {
  email: string
  /** Who vouches for the account. */
  issuer: string
  clientName: string
  clientAddress: string
  /** Where the code goes: origin of the loopback redirect; undefined when nothing is redirected. */
  redirectOrigin: string | undefined
  confirmPath: string
  anotherAccountPath: string
}

/** The one page that can lead to a grant. */
export function showConfirm(res: ServerResponse, page: ConfirmPage): string {
  startPageResponse(res, 200, page.redirectOrigin)
  return layout(
    'Sign in to Postern?',
    html`<dl>
<dt>Account</dt><dd><strong>${page.email}</strong><br>vouched for by ${page.issuer}</dd>
<dt>Program</dt><dd>${page.clientName}${page.redirectOrigin === undefined ? '' : `, waiting on ${page.redirectOrigin}`}</dd>
<dt>Asked from</dt><dd>${page.clientAddress}</dd>
</dl>
<form method="post" action="${page.confirmPath}"><button>Continue as ${page.email}</button></form>
<p class="warning">Only continue if you have just started this yourself, with a postern command on this computer.
If somebody sent you a link to this page, close it: continuing would let their program act in your name.</p>
<p><a href="${page.anotherAccountPath}">Use another account</a></p>`,
  )
}

/** Like every confirmation, and with what tells the person's own program from somebody else's. */
export interface DeviceConfirmPage extends Omit<ConfirmPage, 'redirectOrigin'> {
  userCode: string
  /** Where the program asked from; `clientAddress` is this browser's. */
  deviceAddress: string
}

/** The page that lets a program on another machine in. */
export function showDeviceConfirm(res: ServerResponse, page: DeviceConfirmPage): string {
  startPageResponse(res, 200)
  const isElsewhere = page.deviceAddress !== page.clientAddress
  return layout(
    'Sign in the program that shows this code?',
    html`<dl>
<dt>Code</dt><dd><strong>${page.userCode}</strong></dd>
<dt>Account</dt><dd><strong>${page.email}</strong><br>vouched for by ${page.issuer}</dd>
<dt>Program</dt><dd>${page.clientName}</dd>
<dt>Asked from</dt><dd><strong>${page.deviceAddress}</strong>${isElsewhere ? `; you are at ${page.clientAddress}` : ', where you are too'}</dd>
</dl>
<form method="post" action="${page.confirmPath}"><button>Let it act as ${page.email}</button></form>
<p class="warning">Only continue if you have just run a postern command yourself, on the machine with that address, and
its terminal shows this code. If somebody sent you the code, close this page: continuing would let their program act in
your name.</p>
<p><a href="${page.anotherAccountPath}">Use another account</a></p>`,
  )
}

/** Where the code is typed. */
export function showUserCode(res: ServerResponse, page: { actionPath: string; problem?: string }): string {
  startPageResponse(res, page.problem === undefined ? 200 : 400)
  return layout(
    'Sign in a program on another machine',
    html`<p>Type the code that the postern command shows in its terminal.</p>
${page.problem === undefined ? '' : html`<p><strong>${page.problem}</strong></p>`}
<form method="post" action="${page.actionPath}">
<label for="user_code">Code</label>
<input id="user_code" name="user_code" autocomplete="off" autocapitalize="characters" spellcheck="false" required autofocus>
<button>Continue</button>
</form>
<p class="warning">Only type a code that you see in your own terminal. Nobody who helps you needs one from you, and a
code that somebody sent you lets their program act in your name.</p>`,
  )
}

/** The end of a sign-in whose program is elsewhere. */
export function showDeviceDone(res: ServerResponse): string {
  startPageResponse(res, 200)
  return layout(
    'You are signed in',
    html`<p>Go back to your terminal: the command goes on there by itself.</p>`,
  )
}

/** The program elsewhere has been told. */
export function showGivenUp(res: ServerResponse): string {
  startPageResponse(res, 200)
  return layout(
    'You are not signed in',
    html`<p>The command line has been told. You can close this page.</p>`,
  )
}

/** Stands in for the company's provider while trying Postern out. */
export function showDevSignIn(res: ServerResponse, page: { actionPath: string; problem?: string }): string {
  startPageResponse(res, page.problem === undefined ? 200 : 400)
  return layout(
    'Who are you?',
    html`<p class="warning">This edge runs with the development sign-in: it believes every address. It is for trying
Postern out, never for real services.</p>
${page.problem === undefined ? '' : html`<p><strong>${page.problem}</strong></p>`}
<form method="post" action="${page.actionPath}">
<label for="email">Email address</label>
<input id="email" name="email" type="email" autocomplete="email" required autofocus>
<button>Sign in</button>
</form>`,
  )
}

/** Says in plain words what is wrong, the code to look up, and what to do next. */
export function showError(res: ServerResponse, page: ErrorPage, status = 400): string {
  startPageResponse(res, status, page.retry?.redirectOrigin)
  const retry = page.retry
  return layout(
    'You are not signed in',
    html`<p><strong>${sentence(page.message)}</strong></p>
<p>${sentence(page.hint)}</p>
${
  retry === undefined
    ? ''
    : html`<p><a href="${retry.anotherAccountPath}">Use another account</a></p>
<form method="post" action="${retry.cancelPath}"><button class="quiet">Give up and tell the command line</button></form>`
}
<p class="code">${page.code}</p>`,
  )
}

/** How to begin again, for hints. */
export function startPage(origin: string): string {
  return `start again on the command line: postern login --edge ${origin}`
}

/** Escapes every value that is not markup already. */
export function html(parts: TemplateStringsArray, ...values: (string | Markup)[]): Markup {
  const filled = values.map((value) => (value instanceof Markup ? value.text : escapeText(value)))
  return new Markup(parts.map((part, at) => part + (filled[at] ?? '')).join(''))
}

const ESCAPES: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
  '`': '&#96;',
}

function escapeText(text: string): string {
  return text.replace(/[&<>"'`]/g, (char) => ESCAPES[char]!)
}

function sentence(text: string): string {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? '' : '.'}`
}

const STYLE =
  'body{font:16px/1.5 system-ui,sans-serif;max-width:34rem;margin:4rem auto;padding:0 1rem;color:#1c1c1c;' +
  'background:#fff}h1{font-size:1.5rem}dt{color:#595959;margin-top:.75rem}dd{margin:0}' +
  'button{font:inherit;font-weight:600;padding:.6rem 1.2rem;border:0;border-radius:.4rem;background:#175c3b;' +
  'color:#fff;margin:1.25rem 0;cursor:pointer}button.quiet{background:#e8e8e8;color:#1c1c1c}' +
  'input{font:inherit;display:block;width:100%;box-sizing:border-box;padding:.5rem;margin-top:.25rem}' +
  '.warning{border-left:.25rem solid #b3541e;padding-left:.75rem}.code{color:#595959;font-family:monospace}'
const STYLE_HASH = createHash('sha256').update(STYLE).digest('base64')

function layout(title: string, body: Markup): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escapeText(title)}</title>
<style>${STYLE}</style>
</head>
<body>
<h1>${escapeText(title)}</h1>
${body.text}
</body>
</html>
`
}

/** @NOTE the referrer policy is `same-origin`, not `no-referrer`: under `no-referrer` browsers send
 *  `Origin: null` with the form's own POST (Fetch §4.6), and our Origin check refuses it. Other origins get no
 *  referrer either way.
 *  @param redirectOrigin Chromium holds `form-action` against the redirects that follow the POST too, so the
 *  loopback address of the command line has to be in it */
function startPageResponse(res: ServerResponse, status: number, redirectOrigin?: string): void {
  const formAction = redirectOrigin === undefined ? "'self'" : `'self' ${redirectOrigin}`
  res.statusCode = status
  res.setHeader('Content-Type', 'text/html; charset=utf-8')
  res.setHeader(
    'Content-Security-Policy',
    `default-src 'none'; style-src 'sha256-${STYLE_HASH}'; form-action ${formAction}; frame-ancestors 'none'; ` +
      `base-uri 'none'`,
  )
  res.setHeader('Cache-Control', 'no-store')
  res.setHeader('Referrer-Policy', 'same-origin')
  res.setHeader('X-Content-Type-Options', 'nosniff')
  res.setHeader('X-Frame-Options', 'DENY')
  res.setHeader('Cross-Origin-Opener-Policy', 'same-origin')
}
