/* cost of malloc/free pairs and of N live blocks (page-guard allocators: map count) */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
static double now(void){struct timespec t;clock_gettime(CLOCK_MONOTONIC,&t);return t.tv_sec+t.tv_nsec*1e-9;}
int main(int c,char**v){int n=c>1?atoi(v[1]):20000;double t=now();for(int i=0;i<n;i++){volatile char*p=malloc(100);p[0]=1;free((void*)p);}double a=(now()-t)/n;
void**h=malloc(n*sizeof*h);t=now();int k=0;for(;k<n;k++){h[k]=malloc(100);if(!h[k])break;*(volatile char*)h[k]=1;}double b=(now()-t)/k;t=now();for(int i=0;i<k;i++)free(h[i]);
printf("pair %.2f us, live alloc %.2f us, free %.2f us, live reached %d of %d\n",a*1e6,b*1e6,(now()-t)/k*1e6,k,n);return k<n;}
