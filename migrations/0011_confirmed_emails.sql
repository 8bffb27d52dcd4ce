-- An e-mail address counts once a token that only its mail carried has come back: until then it is its account's pending one,
-- and nobody else's hindrance. A row of `emails` that is not confirmed is from the release before, and counts for nothing.

alter table accounts add column email text;
alter table accounts add column pending_email text;
alter table emails add column confirmed_at timestamptz;

-- Of a token only the hash is kept. `id` is the outbox entry's whose mail carries it: a mail that is sent again has the same one.
create table mail_tokens (
  shard smallint not null,
  account_id bigint not null,
  id bigint not null,
  purpose text not null,
  email text not null,
  token_hash bytea not null,
  expires_at timestamptz not null,
  used_at timestamptz,
  primary key (shard, account_id, id),
  check (shard = ((account_id >> 10) & 8191))
) partition by hash (shard);
create table mail_tokens_0 partition of mail_tokens for values with (modulus 8, remainder 0);
create table mail_tokens_1 partition of mail_tokens for values with (modulus 8, remainder 1);
create table mail_tokens_2 partition of mail_tokens for values with (modulus 8, remainder 2);
create table mail_tokens_3 partition of mail_tokens for values with (modulus 8, remainder 3);
create table mail_tokens_4 partition of mail_tokens for values with (modulus 8, remainder 4);
create table mail_tokens_5 partition of mail_tokens for values with (modulus 8, remainder 5);
create table mail_tokens_6 partition of mail_tokens for values with (modulus 8, remainder 6);
create table mail_tokens_7 partition of mail_tokens for values with (modulus 8, remainder 7);
create index mail_tokens_expiry on mail_tokens (expires_at);
