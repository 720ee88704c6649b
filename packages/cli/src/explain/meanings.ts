// Written by packages/cli/test/error-meanings.ts from docs/errors.md.
import type { ErrorCode } from '@postern/shared/errors'

export const MEANINGS: Readonly<Record<ErrorCode, { meaning: string; next: string }>> = {
  ACCESS_DENIED: {
    meaning:
      'The service does not admit you, or there is no such service: the two look alike from outside. The rule that decided is in the audit log.',
    next: 'Ask the owner of the service to admit you. You need not sign in again afterwards.',
  },
  ACME_CHALLENGE_FAILED: {
    meaning:
      "The CA looked for the proof that a name is the edge's and did not find it. The message says for which name and what it saw.",
    next: 'The name must lead to this edge from the internet: on port 443 for tls-alpn-01, with nothing in front that ends TLS; on port 80 for http-01; for dns-01 the record must be public when the hook ends. Look at CAA records, too.',
  },
  ACME_HOOK_FAILED: {
    meaning:
      'The program tls.acme.dns_hook ended with another exit code than 0, or took more than five minutes. The message has the last line it wrote to stderr.',
    next: 'Run it by hand as the user of the edge: HOOK present _acme-challenge.DOMAIN VALUE.',
  },
  ACME_PROTOCOL_INVALID: {
    meaning:
      'The ACME server answered with something that is none of ACME, too large, or a certificate that is not for what was asked.',
    next: "Check tls.acme.directory: it is the URL of the directory, as the CA's documentation has it.",
  },
  ACME_RATE_LIMITED: {
    meaning:
      'The CA has had too many orders or failures for these names or this account. The edge asks again when the CA says, not sooner, also after a restart.',
    next: 'Wait. While you look for settings that work, use the staging server of the CA.',
  },
  ACME_REFUSED: {
    meaning:
      'The CA does not give a certificate: a name it does not certify, an account that is not bound to a customer, a challenge that it does not offer. The message has its words.',
    next: 'Correct what they name, in tls.acme or in the DNS, and restart the edge: changed settings are tried at once.',
  },
  ACME_UNREACHABLE: {
    meaning:
      'The ACME server (tls.acme.directory) cannot be reached, does not answer, is not trusted, or has a failure of its own. The edge goes on with the certificate it has and tries again ever more rarely, at last every six hours.',
    next: "Look at the edge's way to the CA: network, DNS, tls.acme.ca_file for a CA of your own. Nothing is to be restarted.",
  },
  ADDRESS_INVALID: {
    meaning: 'Something in a list of addresses is not an email address. Nothing was created or changed.',
    next: 'Write name@domain in plain letters, without a display name. Quoted local parts are not taken.',
  },
  ADMIN_REQUIRED: {
    meaning: 'Only administrators of the edge may do this.',
    next: 'Ask one of them; admins in the edge’s configuration names them.',
  },
  ALLOW_LIST_DIFFERS: {
    meaning:
      'postern connect was started for a service that exists, with other lists than the service has. Both are shown. It stops here, because a restart must not undo a list that somebody has tightened.',
    next: 'Leave the lists out to keep what the service has, or add --replace-allow-list to overwrite it.',
  },
  ALLOW_LIST_EMPTY: {
    meaning:
      'A service would admit nobody, or a new one was not told whom to admit. Postern has no default that lets people in.',
    next: 'Name who may enter: --allowed-email-domains, --allowed-email-addresses, or, meaning it, --allow-any-authenticated.',
  },
  AUDITOR_REQUIRED: {
    meaning: 'Only auditors and administrators may read this.',
    next: 'Ask an administrator of the edge to add you to auditors.',
  },
  AUDIT_BROKEN: {
    meaning:
      'postern audit verify has found a record that is not what the edge has written: changed, removed, moved or put in, or an end that was cut off, or a checkpoint that another key has signed. The message names the first one, by its line in the file, its number and its place in the chain.',
    next: 'Keep the file and the store as they are, and export again to see whether the store or only the file is damaged; audit.md says what each finding means.',
  },
  BUSY: {
    meaning:
      'Another postern process holds the lock of this session, and did not let go within the time for it.',
    next: 'Wait for it, or end it: often a sign-in page that nobody has answered.',
  },
  CA_KEY_LOCKED: {
    meaning:
      "The keys of the edge's CAs are encrypted, and the passphrase that the configuration names does not open them, or none is named. The edge does not start: without its keys it could issue nothing.",
    next: 'Name the file with the passphrase in ca.key_passphrase_file. After a restore from a backup it is the passphrase of that time; postern-edge ca encrypt-keys --old-passphrase-file FILE brings the keys to the new one.',
  },
  CA_ROTATING: {
    meaning:
      'postern-edge ca rotate was asked for a CA that is being rotated: for some time yet the one before it is believed too.',
    next: 'Wait; postern-edge ca show says until when. When the old key was stolen, --unsafe-end-overlap ends it now.',
  },
  CERTIFICATE_EXPIRED: {
    meaning:
      'The certificate is past its time. Client certificates live for minutes; a connector’s may be renewed up to 30 days after it expired.',
    next: 'Run the command again: it gets a new one. If it comes back at once, compare the clocks.',
  },
  CERTIFICATE_NOT_RENEWABLE: {
    meaning:
      'The certificate of a program wanted to renew itself, and is valid already until the end that was fixed with the first of its lineage (--lifetime).',
    next: 'Make a new one before that day: postern certificate issue.',
  },
  CERTIFICATE_REFUSED: {
    meaning:
      'The edge does not accept the certificate: from another CA, of another kind, unknown to its store, or none at all. Or it is of a CA that the service trusts, but not for clients, or its subject is such that no rule could name it. Usually found in the TLS handshake, before a byte of the flow; then the edge closes the connection without a word.',
    next: 'Run the command again: it gets a new certificate. If that does not help, sign in again. A connector renews its certificate and comes back by itself. A program needs a new one from the owner of its service.',
  },
  CERTIFICATE_REVOKED: {
    meaning: 'The certificate was revoked, most often because its session ended.',
    next: 'postern login --edge https://HOST.',
  },
  CERTIFICATE_SUPERSEDED: {
    meaning:
      'A certificate of a program that had been renewed before wanted to renew itself once more with another key. So two hold its key, perhaps a thief and the program: every certificate of the lineage was revoked, and its flows were ended.',
    next: 'Find the copy of the key, then make a new one: postern certificate issue. A program that asks again because an answer was lost must use the key of its first request.',
  },
  CERTIFICATE_UNKNOWN: {
    meaning: 'No certificate with this serial was issued here, or it is for a service of somebody else.',
    next: 'Look for it in the audit log: postern audit list.',
  },
  CERTIFICATE_WRONG_SERVICE: {
    meaning:
      'A valid certificate was used for another service than the one it was issued for. One certificate opens one service.',
    next: 'Use the certificate of this service. postern client tls does so by itself.',
  },
  CHECK_FAILED: {
    meaning: 'postern doctor found something that does not work.',
    next: 'Below each line that begins with fail stands the next step; then run it again.',
  },
  CLOCK_OFF: {
    meaning:
      'The clock of this machine is too far from the edge’s for certificates and proofs to hold. The message says by how much.',
    next: 'Set the clock, for example with timedatectl set-ntp true.',
  },
  CONFIG_INVALID: {
    meaning:
      'The configuration of the edge has problems. All of them are listed at once, each with line, key, the value seen and an example. The same code stands for an address that the edge cannot listen on.',
    next: 'Correct the file and try postern-edge config check --config FILE. Every key is in config.md.',
  },
  CONNECTOR_REFUSED: {
    meaning:
      'The edge does not let this connector stay: its service was deleted, its owner is no operator any more, or its certificate was revoked.',
    next: 'Start the connector again with postern connect …; if that is refused as well, the message says why.',
  },
  CONNECTOR_REPLACED: {
    meaning:
      'Another process attached with the key of this connector while the edge heard nothing from it. The connector renews its certificate and comes back by itself; CONNECTOR_SUPERSEDED follows when the other one is alive.',
    next: 'Nothing, if it comes back. If it is ended then, look for a copy of its state folder.',
  },
  CONNECTOR_SUPERSEDED: {
    meaning:
      'Two processes used the same connector key: one attached while the other still answered, or both renewed. One of them is a copy, and nobody can tell which: all certificates of that lineage were revoked, and both ended. The audit log has connector.superseded with both addresses.',
    next: 'Find the copy (a cloned machine, a state folder on a shared disk or in a backup, a thief) and remove its state folder. Then start the connector again as a signed-in operator: it gets a key of its own. If you made no copy yourself, find out who did: until now they could stand beside your connector.',
  },
  CONNECTOR_UNKNOWN: {
    meaning: "No connector has this id, or it serves somebody else's service.",
    next: 'Look for its id in the audit log: postern audit list.',
  },
  CRL_EXPIRED: {
    meaning:
      "postern-edge ca crl --check looked at a copy of the edge's list of revoked certificates whose nextUpdate has passed. Programs that read it refuse every certificate, or no longer notice what is revoked.",
    next: 'Fetch it from https://HOST/v1/crl/client.crl more often than ca.crl_lifetime.',
  },
  CRL_INVALID: {
    meaning:
      "postern-edge ca crl --check looked at a copy of the edge's list of revoked certificates and does not believe it: it is damaged, of another CA, wrongly signed, or not valid yet.",
    next: 'Fetch it anew from https://HOST/v1/crl/client.crl. Where it comes out wrong again, look at who serves it.',
  },
  DOMAIN_INVALID: {
    meaning:
      'Something in a list of domains is not a domain. Nothing was created or changed. Domains match exactly, so there are no wildcards; sub-domains are other domains.',
    next: 'Write mycorp.com, without @, * or a final dot; an internationalized domain in its xn-- form.',
  },
  DPOP_INVALID: {
    meaning:
      'A request did not prove that it holds the key its token is bound to (RFC 9449): a proof for another request, one that was used before, or another key. A stolen token ends here.',
    next: 'postern login --edge https://HOST.',
  },
  DURATION_INVALID: {
    meaning: 'A time span has a wrong form.',
    next: 'Write a number and a unit: 250ms, 30s, 5m, 12h or 7d.',
  },
  EDGE_KEYS_DIFFER: {
    meaning:
      'Two edges that share a store have other keys. What one of them signs, the other refuses: people would be turned away at one edge with what another gave them. An edge that finds this at its start does not start. Edges that run say it in the log (fleet.keys_differ) and serve on.',
    next: 'Copy ca and login-keys.json from the data_dir of the edge that is right to the other one, with their modes. What lies in ca is read without a restart, login-keys.json at the next start. To replace a key at one blow, stop all edges, replace it at each, and start them. An edge that was killed counts for 30 seconds more.',
  },
  EDGE_STOPPING: {
    meaning: 'The edge is about to stop, or stopped while the flow was running.',
    next: 'Try again in a moment. Connectors come back by themselves.',
  },
  EDGE_UNKNOWN: {
    meaning:
      'The command needs an edge that this machine has not signed in to. It is never looked up by itself: any host name in an ssh configuration could otherwise open a page in your browser.',
    next: 'Sign in once: postern login --edge https://HOST, with the address your company gave you. The message has the exact line.',
  },
  EDGE_UNREACHABLE: {
    meaning: 'The edge does not answer: wrong address, no network, a firewall, or it does not run.',
    next: 'Check the network and that the edge is running: curl https://HOST/healthz.',
  },
  EDGE_UNTRUSTED: {
    meaning:
      'The certificate of the edge is not from a CA this machine trusts, is not valid now or names another host; or what answers is not the edge it says it is. There is no way to skip this check.',
    next: 'If the edge has its own CA, get its file from whoever runs the edge: postern login --edge https://HOST --ca-file ca.pem. If this machine has known it before, its CA has been replaced while the machine was away: get the fingerprint of the new one on a way that you trust, and sign in with --ca-fingerprint sha256:HEX; or with --public-ca, if the edge has a public certificate now.',
  },
  ENROLL_TOKEN_INVALID: {
    meaning:
      'The token with which a server wanted to become a connector (postern connect --enroll-token-file) cannot be used: it is unknown or mistyped, was cancelled, was used before, has expired, is for another service than the one that --name says, or its service was deleted or belongs to somebody who is no operator any more. The message says which, the audit log too (enroll_token.refused).',
    next: 'Make a new one: postern service enroll-token LABEL. If it *was used before* and not by you, somebody else has read it: look at postern audit list --type enroll_token.used and delete the service if you do not know the machine.',
  },
  FLOW_CUT: {
    meaning:
      'The connection broke in the middle of a flow: a machine, a process or the network on the way failed. An end of file is never made out of that, so bytes may be missing.',
    next: 'Repeat the transfer.',
  },
  FLOW_IDENTITY_INVALID: {
    meaning:
      'Of a service that checks who comes: the identity in a PROXY header is not one that the edge has signed for this very connection to this service within the last minute. Either somebody else wrote the header, or the reader expects another edge, service or key, or its clock is off.',
    next: 'Serve nobody on that connection. protocol.md says how an identity is checked, and where the edge shows its keys.',
  },
  FLOW_REVOKED: {
    meaning:
      'A running flow was ended: you were taken off the allow-list, the session behind it ended, or the service was deleted.',
    next: 'Ask the owner of the service, or sign in again.',
  },
  FLOW_TOO_LONG: {
    meaning: 'The policy limits how long one connection may last, and this one reached the end.',
    next: 'Connect again.',
  },
  FLOW_UNKNOWN: {
    meaning: 'There is no flow of that id, or it is neither yours nor of a service of yours.',
    next: 'Copy the id from the message on stderr. An auditor can look for it with postern audit list.',
  },
  HOST_KEY_CHANGED: {
    meaning:
      'The ssh server behind a service shows other host keys than those on record. Either it was set up anew, or somebody stands in its place. The new keys wait; people keep the old ones and their ssh refuses the server.',
    next: "If the change was meant, the owner compares the fingerprints in postern service show LABEL with the server's and accepts them: postern service accept-host-keys LABEL.",
  },
  IDENTITY_LOCKED: {
    meaning:
      'An administrator has locked this person: sign-in, refresh, API, certificates and flows are refused until the lock ends or somebody ends it.',
    next: 'Ask an administrator of the edge.',
  },
  IDENTITY_UNKNOWN: {
    meaning: 'Nobody with this address has signed in here, or nobody with it is locked.',
    next: 'Check the address: postern audit list shows how it is written.',
  },
  INTERNAL: {
    meaning:
      'A failure inside the edge or the program that has no name. The edge says a request id and keeps the cause in its log.',
    next: 'Tell the administrator of the edge the request id; they find it with grep.',
  },
  INTERRUPTED: {
    meaning: 'The command was ended by Ctrl-C or a signal.',
    next: 'Nothing.',
  },
  KRL_INVALID: {
    meaning:
      'The list of revoked certificates that the edge gave is damaged, older than the one that is there, or names keys that are not the edge’s to revoke. It was not installed: sshd goes on with the last good one.',
    next: 'After a restore of the edge from a backup: postern sshd refresh --accept-older-list. Else look at the log of the edge.',
  },
  LABEL_INVALID: {
    meaning:
      'A label, the first part of a service’s host name, has a wrong form, or is one that the edge keeps for itself (www, mtls, login, …).',
    next: 'Use 3 to 63 lower-case letters, digits and inner hyphens, no hyphens as third and fourth character.',
  },
  LABEL_TAKEN: {
    meaning:
      'The label belongs to another service, or to another owner from earlier on: a label never changes hands by itself, for people still have it in their configuration.',
    next: 'Choose another, or leave --label out to get a generated one.',
  },
  LISTENERS_INVALID: {
    meaning:
      'The file of postern client listen -f has entries that cannot be used: a key that does not exist or is missing, a value of the wrong kind, two entries at one place. Each is named with its line. At the start nothing is opened then; while it runs, the good entries are in force, and no listener is ended as long as anything is wrong with the file.',
    next: 'Correct the named lines. The file is read again by itself, within two seconds.',
  },
  LISTEN_FAILED: {
    meaning:
      'postern client listen cannot have the place it was given. A port: another program listens there, the user may not, or the machine has no such address. A socket: another program listens there, something else has that name, or everybody may write to its folder. What a killed listener left behind is no reason: it is removed.',
    next: 'Choose another port, or port 0 for any free one; ss -ltnp shows who has it. For a socket name a file in a folder of your own; a file that is in the way stays until you remove it.',
  },
  LOCAL_USER_REFUSED: {
    meaning:
      'A program of another user of this machine connected to the port of postern client listen, and was cut off. Every account can reach a loopback port, and what enters there enters in the name of the person who started the listener.',
    next: 'That user starts a listener of their own. --unsafe-any-local-user serves everybody on the machine.',
  },
  LOCAL_USER_UNKNOWN: {
    meaning:
      'A program connected to the port of postern client listen, wrote and closed at once, without waiting for anything, and was gone before its user could be looked up. Nobody can tell whose it was, so it was cut off, and what it sent is lost; it has not noticed. Linux 6.18 and newer remember the user for a moment longer, which is mostly enough.',
    next: 'Let the program wait for the other end before it closes: nc -N, or in Python shutdown(SHUT_WR) and then recv. Or listen with --local unix:PATH: only your own programs can open that file, so nothing has to be looked up. --unsafe-any-local-user serves everybody on the machine.',
  },
  LOGIN_FAILED: {
    meaning:
      'The sign-in did not come to an end: no browser, nobody signed in within the time for it, the page was closed, or the provider failed.',
    next: 'Try again. The address of the page is always printed, so it can be opened by hand on the same machine.',
  },
  LOGIN_REFUSED: {
    meaning:
      'The provider or the edge does not accept this account: the address is not verified, not of a domain this provider may vouch for, a required claim is missing, or the person said no on the confirmation page.',
    next: 'Sign in with an account of the company. Administrators: see identity in config.md.',
  },
  LOGIN_TOO_OLD: {
    meaning:
      'The service would admit you, but asks for a login that is younger than yours. Or you are an administrator, and limits.admin_login_age asks for a recent login before you cut or revoke.',
    next: 'Sign in again: postern login --edge https://HOST.',
  },
  NAME_TAKEN: {
    meaning: 'You have another service of this name.',
    next: 'Choose another name, or use that service: postern service list.',
  },
  NETWORK_NOT_ALLOWED: {
    meaning: 'The service would admit you, but not from the network that you come from.',
    next: "Connect from a network that the service admits (the company's VPN, an office), or ask its owner.",
  },
  NOT_FOUND: {
    meaning: 'There is nothing at this path of the edge.',
    next: 'Check that postern and postern-edge have the same version (postern doctor tells both).',
  },
  OPERATOR_REQUIRED: {
    meaning: 'Only operators may expose services.',
    next: 'Ask an administrator of the edge to add you to operators.',
  },
  OUTSIDE_HOURS: {
    meaning:
      'The service would admit you, but not at this time of the week. A connection that is open when the window ends is ended.',
    next: 'Try again when the service is open to you, or ask its owner which hours those are.',
  },
  POLICY_INVALID: {
    meaning:
      'The policy document has entries that mean nothing: the message names each with its place. Nothing was changed.',
    next: 'Correct the named places and apply it again. postern policy get shows a document that is valid.',
  },
  PRINCIPAL_INVALID: {
    meaning:
      "A name cannot stand in an ssh certificate: it is empty, longer than 64 bytes, has a space, a comma, a wildcard or a control character, or it would take the place of an address, of a service's host or of another service's own names.",
    next: 'Write another name. Names that only this service uses begin with its label: LABEL/dba.',
  },
  PROTOCOL_INVALID: {
    meaning:
      'What came over the wire is not Postern’s protocol, or is of a version that does not go together with this one.',
    next: 'Check that postern and postern-edge have the same version (postern doctor tells both), and that no proxy in between opens TLS.',
  },
  PROXY_INVALID: {
    meaning:
      'What listens at the address of the proxy is no proxy of that kind: it answers with something that none says.',
    next: 'Check address and kind, http://HOST:PORT, https://HOST:PORT or socks5://HOST:PORT.',
  },
  PROXY_LOGIN_REQUIRED: {
    meaning:
      'The proxy wants a user name and a password, or does not accept those that it was given. HTTP proxies are told Basic credentials; one that wants Negotiate or NTLM instead says the same.',
    next: 'Put USER:PASSWORD into a file of mode 600 and name it with --proxy-credentials-file, or write both into the address in the environment.',
  },
  PROXY_REFUSED: {
    meaning:
      'The proxy was asked for a connection to the edge and says no: its rules do not allow it, or it cannot reach the edge itself. The message has its answer.',
    next: "Ask whoever runs the proxy to let this machine connect to the edge's host and port.",
  },
  PROXY_UNREACHABLE: {
    meaning:
      'The proxy of this network cannot be reached, does not answer within eight seconds, or closes the connection without a word.',
    next: 'Check its address in --proxy, POSTERN_PROXY, HTTPS_PROXY or ALL_PROXY. Where no proxy is needed, name the edge in NO_PROXY.',
  },
  PROXY_UNTRUSTED: {
    meaning:
      'The certificate of an https:// proxy is not trusted: of an unknown CA, for another name, or not valid now. Nothing was said to it, no name and no password.',
    next: 'If the proxy has a CA of its own, name it with --proxy-ca-file or POSTERN_PROXY_CA_FILE; the address has to be a name that stands in the certificate.',
  },
  RATE_LIMITED: {
    meaning:
      'Too many certificates or flows in a minute, too many refused sign-ins, codes or tokens from your address, or too many flows at once.',
    next: 'Wait a minute. Administrators: see limits in config.md.',
  },
  RECORD_FAILED: {
    meaning: 'The edge cannot write its audit log, and does not relay or issue what it cannot record.',
    next: 'Administrators: look at the disk and the log of the edge.',
  },
  REQUEST_INVALID: {
    meaning:
      'The edge does not understand a request: a body that is not JSON, a field it does not know, a certificate request with a weak key.',
    next: 'With the programs of this repository it means that postern and postern-edge have different versions: bring both to the same. With a program of your own, compare with packages/shared/src/api.',
  },
  REQUEST_TOO_LARGE: {
    meaning: 'A request has more bytes than the edge takes.',
    next: 'Send less at once; an allow-list may have 10,000 entries of each kind.',
  },
  REVISION_CONFLICT: {
    meaning: 'The service was changed or deleted by somebody else between your reading and your writing.',
    next: 'Look at it again with postern service show, and repeat what still applies.',
  },
  SERVICES_INVALID: {
    meaning:
      'The file of postern connect -f has entries that cannot be used: a key that does not exist or is missing, a value of the wrong kind, two entries of one name. Each is named with its line. At the start nothing is started then; while it runs, the good entries are in force, and no service leaves as long as anything is wrong with the file.',
    next: 'Correct the named lines; connector.md says what may stand there. The file is read again by itself, within two seconds.',
  },
  SERVICE_OFFLINE: {
    meaning: 'No connector of the service is connected to the edge.',
    next: 'Whoever runs the service starts its connector: postern connect --name NAME --port PORT.',
  },
  SERVICE_REFUSED: {
    meaning: 'The connector is there, and nothing listens on the port it forwards to.',
    next: 'Check that the service runs on the connector’s machine. The connector says which host and port it tried; people outside never see that.',
  },
  SERVICE_SETUP_FAILED: {
    meaning:
      'postern client install-service or connector install-service could not make or remove the service: this machine has no systemd for its users, systemd says no, or another unit has the name. A unit that systemd never heard of is not left behind.',
    next: 'Read what systemctl said in the message, and journalctl --user -u postern-listen. On another system use --print launchd or --print windows. A unit of your own is not replaced: choose another name with --unit.',
  },
  SERVICE_UNKNOWN: {
    meaning: 'You have no service of this label or host name. Whether somebody else has one is not said.',
    next: 'Look at yours with postern service list.',
  },
  SERVICE_UNREACHABLE: {
    meaning: 'The connector got no answer from the service in time, or cannot resolve or reach its host.',
    next: 'Check the --host and --port the connector was started with.',
  },
  SESSION_ENDED: {
    meaning:
      'The session is over: its time is up (12 hours by default, whatever happens), somebody signed out, or it was revoked.',
    next: 'postern login --edge https://HOST.',
  },
  SESSION_KIND_NOT_ALLOWED: {
    meaning: 'The service would admit you, but not with a login that was made by typing a code.',
    next: 'Sign in with a browser on this machine: postern login --edge https://HOST.',
  },
  SESSION_UNKNOWN: {
    meaning: "No live login has this id, or it is somebody else's.",
    next: 'List them: postern session list.',
  },
  SIGN_IN_REQUIRED: {
    meaning: 'There is no session, or the edge does not accept its token.',
    next: 'postern login --edge https://HOST.',
  },
  SSHD_SETUP_FAILED: {
    meaning:
      'postern sshd setup could not make its change, or would have locked somebody out. What it had written is taken back: sshd is as it was before.',
    next: 'Mend what the message names, look with --dry-run, try again.',
  },
  SSH_AGENT_FAILED: {
    meaning:
      '--agent was asked for, and there is no ssh-agent, it does not answer, or it refuses the key (it may be locked).',
    next: 'Start one (eval "$(ssh-agent)"), unlock it (ssh-add -X), or leave --agent out.',
  },
  SSH_CA_UNKNOWN: {
    meaning:
      'The edge’s ssh CA is another one than this server believes, and no CA that the server believes vouches for it: the server was off while one CA took over from the other, the edge was set up anew, or somebody poses as it. Nothing new is believed.',
    next: 'See on the edge which CAs there are (postern-edge ca show). If it is right, set the server up again: postern sshd setup --undo, then postern sshd setup --host HOST --user USER.',
  },
  SSH_CONFIG_INVALID: {
    meaning:
      "postern ssh-config cannot change the ssh configuration safely: the file is none that can be read and written, or a path or a name has characters that ssh's configuration cannot express.",
    next: 'The message names what is in the way.',
  },
  SSH_FILE_FOREIGN: {
    meaning:
      'Where the key or the certificate of a service would be written (~/.ssh/HOST, ~/.ssh/HOST-cert.pub) lies a file, a link or a folder that Postern did not make, or that somebody changed since. It is neither used nor overwritten.',
    next: 'Move it away. Or keep it, and have the certificate in the ssh-agent: postern client ssh-keysign --agent.',
  },
  SSH_KEY_INVALID: {
    meaning:
      'A public key for ssh is malformed, of a kind that is not certified (dsa, nistp384, a security key), or too weak.',
    next: 'Use ed25519, ecdsa on nistp256, or rsa with 2,048 to 8,192 bits.',
  },
  STATE_INVALID: {
    meaning:
      'A file that Postern keeps is damaged, cannot be written (the disk is full, or mounted read-only), or has wrong permissions. The message names it. What was there before is unchanged: files are written whole or not at all.',
    next: 'Damaged: move the named file away and sign in again; on an edge, restore it from the backup. Not writable: make room, or the disk writable, and run the command again.',
  },
  STORE_LOST: {
    meaning:
      "The edge's database does not take writes, so nothing can be decided or recorded. Flows that run stay for a while, as on_store_loss and store_loss_grace say.",
    next: 'Try again in a moment; the edge recovers by itself once its store is back.',
  },
  STRONGER_LOGIN_REQUIRED: {
    meaning:
      "The service would admit you, but your login did not use the methods that it asks for, a second factor for example, or the company's provider does not tell.",
    next: 'Sign in again with a second factor: postern login --edge https://HOST. If that does not help, the provider does not report methods (amr, acr): tell the administrator of the edge.',
  },
  TLS_FILES_INVALID: {
    meaning:
      "The files of the edge's own certificate (tls.certificate_file, tls.key_file) have changed, and what they hold cannot be used: no certificate, another key, other names, expired, unreadable. The message says which. The edge goes on with the certificate it had, and looks every two seconds.",
    next: "Write a certificate with its chain and its key there, valid for the edge's name and for mtls. that name. The edge takes it by itself.",
  },
  TOO_MANY_FLOWS: {
    meaning: 'You have as many connections open as the policy lets one person have.',
    next: 'Close one and try again. postern flow list shows them.',
  },
  TRANSPORT_REFUSED: {
    meaning:
      'With --transport ws, what stands in front of the edge opens no WebSocket to it. The message has its answer: 404 when it does not lead to an edge, or to one that is older; 503 when the edge is full or about to stop.',
    next: 'Let it pass WebSockets to the edge (networks.md).',
  },
  TRUSTED_CRL_EXPIRED: {
    meaning:
      'A service trusts the CA that made the certificate, with a list of revoked certificates (crl in trusted_client_cas), and the successor of that list is overdue. Nobody of this CA is admitted until there is a newer one.',
    next: "The owner of the service puts the CA's newest list into the policy: postern policy apply.",
  },
  USAGE_INVALID: {
    meaning:
      'The command line is wrong: an unknown option, a value of the wrong form, options that exclude each other, a file that cannot be read.',
    next: 'Run the command with --help: it shows every option and examples.',
  },
  WORKLOAD_INVALID: {
    meaning: 'The name of a program in postern certificate issue or in a workloads rule cannot be one.',
    next: 'Use up to 64 letters, digits and, inside, ., _ and -: carbon-relay-3.',
  },
}
