-- A name that its owner gave up is held for a while: nobody else can take it before then, and it still finds its owner.

alter table usernames add column held_until timestamptz;

create index usernames_held on usernames (account_id) where held_until is not null;
