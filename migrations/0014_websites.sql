alter table accounts add column website text not null default '';
