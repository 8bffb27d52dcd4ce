-- Finding accounts by what their names begin with, one slip forgiven.

-- Folded (src/instafeed/folding.py): an account's names, each from every word on. `level` is the number of digits of its
-- follower count, less one.
create table search_terms (
  shard smallint not null,
  account_id bigint not null,
  term text collate "C" not null,
  level smallint not null default 0,
  primary key (shard, account_id, term),
  check (shard = ((account_id >> 10) & 8191))
) partition by hash (shard);
create table search_terms_0 partition of search_terms for values with (modulus 8, remainder 0);
create table search_terms_1 partition of search_terms for values with (modulus 8, remainder 1);
create table search_terms_2 partition of search_terms for values with (modulus 8, remainder 2);
create table search_terms_3 partition of search_terms for values with (modulus 8, remainder 3);
create table search_terms_4 partition of search_terms for values with (modulus 8, remainder 4);
create table search_terms_5 partition of search_terms for values with (modulus 8, remainder 5);
create table search_terms_6 partition of search_terms for values with (modulus 8, remainder 6);
create table search_terms_7 partition of search_terms for values with (modulus 8, remainder 7);

-- Whole names of the accounts that are there; what this misses comes with their next change.
insert into search_terms (shard, account_id, term, level)
select shard, id, translate(username, '._', '  '), length(follower_count::text) - 1 from accounts on conflict do nothing;
insert into search_terms (shard, account_id, term, level)
select shard, id, lower(display_name), length(follower_count::text) - 1 from accounts where display_name <> '' on conflict do nothing;

create index search_terms_prefix on search_terms (level, term);

-- The words of terms. `slips` has hashes of what is left of a word with any one letter left out: words that are one slip apart
-- have one in common. `level` is the highest of an account that has the word, or had.
create table search_words (
  shard smallint not null,
  word text collate "C" not null,
  level smallint not null,
  slips integer[] not null,
  primary key (shard, word)
) partition by hash (shard);
create table search_words_0 partition of search_words for values with (modulus 8, remainder 0);
create table search_words_1 partition of search_words for values with (modulus 8, remainder 1);
create table search_words_2 partition of search_words for values with (modulus 8, remainder 2);
create table search_words_3 partition of search_words for values with (modulus 8, remainder 3);
create table search_words_4 partition of search_words for values with (modulus 8, remainder 4);
create table search_words_5 partition of search_words for values with (modulus 8, remainder 5);
create table search_words_6 partition of search_words for values with (modulus 8, remainder 6);
create table search_words_7 partition of search_words for values with (modulus 8, remainder 7);
create index search_words_slips on search_words using gin (slips);
