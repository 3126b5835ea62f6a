module rival

go 1.24
